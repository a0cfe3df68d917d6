"""A piece that is heard while it is made, the same piece that `MeLoDyPipeline` makes as a whole.

The plan is drawn as far as the diffusion needs it, the diffusion goes on until another chunk is done, and that chunk is
decoded. The noise comes from where the pipeline takes it: from the same generator, behind all draws of the plan.

Shapes: L latent frames, D latent channels, S semantic tokens, T samples.
"""

from collections.abc import Iterator
from copy import deepcopy

import torch
import torch.nn.functional as F

from ..audio import fade_
from .checks import MeLoDyInputError
from .denoise import Pass, plan_passes, window_and_chunk
from .plan import skip_draws
from .request import GenerationRequest
from .stages import require_finite
from .stream import CEILING, FALL_SECONDS, limit_chunk
from .text_to_music import MeLoDyPipeline


def _fresh_seed(pipe: MeLoDyPipeline, request: GenerationRequest) -> int:
    """The seed of a request that `play` can make: one waveform of a prompt, no loop, from a fresh generator.

    Raises:
        MeLoDyInputError: it is none; names the argument.
    """
    if request.loop:
        raise MeLoDyInputError("loop", True, "be False for what is heard while it is made")
    if request.batch_size != 1:
        raise MeLoDyInputError("prompt", None, "be one for what is heard while it is made", str(request.batch_size))
    (seed,) = request.seeds
    if seed is None:
        raise MeLoDyInputError("generator", None, "be on the CPU and not used before")
    if request.semantic_tokens is not None or request.latents is not None:
        raise MeLoDyInputError("semantic_tokens", None, "be left out", "a plan, or noise")
    if not hasattr(pipe.vae, "decode_next"):
        raise ValueError(f"`play` needs a `vae` that decodes part by part, by `decode_next`; got {type(pipe.vae)}.")
    return seed


@torch.no_grad()
def play(pipe: MeLoDyPipeline, request: GenerationRequest) -> Iterator[torch.Tensor]:
    """The piece that the pipeline makes of this request, (1, T) float32 part by part, as soon as each is known.

    It is the same sound but for the limiter, which does not know yet what comes: where it acts, it acts chunk by chunk.
    What the request's callbacks raise ends it.

    Raises:
        MeLoDyInputError: the request is of several waveforms, a loop or a plan, or its generator was used before.
        FloatingPointError: a model produced NaN or infinity; names the stage.
    """
    behind = torch.Generator().manual_seed(_fresh_seed(pipe, request))
    timebase, device = pipe.timebase, pipe._execution_device
    mulan_tokens = pipe.encode_asked(request)
    if mulan_tokens is None:
        mulan_tokens = request.mulan_tokens
    negative = pipe.encode_negative(request)
    num_tokens, num_frames = timebase.frames_to_tokens(request.num_frames), request.num_frames

    if request.sampling.temperature > 0:
        skip_draws(behind, num_tokens * pipe.semantic_lm.config.semantic_codebook_size)
    latents = pipe.prepare_latents(1, num_frames, [behind])

    scheduler = deepcopy(pipe.scheduler)
    scheduler.set_timesteps(request.num_inference_steps)
    window, chunk = window_and_chunk(pipe.dual_path.config, num_frames)
    unknown = torch.ones(num_frames, dtype=torch.bool)
    passes = plan_passes(unknown, window, chunk, scheduler, timebase.frame_alignment, request.continuation)

    step = -(-timebase.frames_to_tokens(pipe.dual_path.config.num_frames) // pipe.dual_path.config.num_chunks)
    tokens = torch.zeros(1, 0, dtype=torch.long, device=device)
    fall = torch.hann_window(2 * request.ending_samples)[: request.ending_samples].flip(0)
    memory, decoded, sent, gain = None, 0, 0, 1.0
    for some, done in _by_chunk(passes, num_frames):
        needed = timebase.frame_to_token(some[-1].start) + timebase.frames_to_tokens(window)
        while tokens.shape[1] < needed:
            known = tokens.shape[1]
            upto = min(num_tokens, max(known + step, timebase.frames_to_tokens(window)))
            tokens = pipe.generate_semantic_tokens(
                mulan_tokens,
                upto,
                known_tokens=F.pad(tokens, (0, upto - known)),
                known=torch.arange(upto) < known,
                sampling=request.sampling,
                generator=request.generator,
                callback_on_token_end=request.callback_on_token_end,
                negative_tokens=negative,
            )
        latents = pipe.denoise_latents(
            latents,
            F.pad(tokens, (0, num_tokens - tokens.shape[1])),
            mulan_tokens=mulan_tokens,
            passes=some,
            guidance_scale=request.guidance_scale,
            prompt_guidance_scale=request.prompt_guidance_scale,
            guidance_interval=request.guidance_interval,
            attention_kwargs=request.attention_kwargs,
            callback_on_step_end=request.callback_on_step_end,
        )
        if done < num_frames:
            sound, memory = pipe.vae.decode_next(latents[:, decoded:done].to(pipe.vae.dtype), memory)
            require_finite(sound, "decoder")
            sound = sound[0].float()
        else:  # as the pipeline decodes it, for the end has nothing ahead
            sound = pipe.decode_unlimited(latents, request.num_samples)[0, :, sent:]
        decoded = done
        sound = sound[:, : request.num_samples - sent]
        if sent == 0:  # with the gain that it needs throughout; a piece of one part is then limited as a whole
            gain = CEILING / max(float(sound.abs().amax()), CEILING)
        sound, gain = limit_chunk(sound, gain, timebase.seconds_to_samples(FALL_SECONDS))
        sound = sound.cpu()
        if sent == 0:
            fade_(sound, request.fade_samples, 0)
        begin = request.num_samples - request.ending_samples - sent  # of the ending, in this part
        if begin < sound.shape[1]:
            first = max(0, begin)
            sound[:, first:] *= fall[first - begin : sound.shape[1] - begin]
        sent += sound.shape[1]
        yield sound
    pipe.maybe_free_model_hooks()


def _by_chunk(passes: list[Pass], num_frames: int) -> Iterator[tuple[list[Pass], int]]:
    """The passes that finish further frames, and the number of frames that are done after them."""
    some: list[Pass] = []
    done = 0
    for each, following in zip(passes, [*passes[1:], None]):
        some.append(each)
        reached = num_frames if following is None else following.start + int((following.before > 0).int().argmax())
        if reached > done:
            yield some, reached
            some, done = [], reached
