"""`melody generate`, `melody inpaint` and `melody continue`."""

import argparse
import contextlib
import io
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .midi import check_midi_output, write_notes
from .pipeline import load_pipeline

if TYPE_CHECKING:
    import torch

    from ..plans import MusicPlan

Made = TypeVar("Made")
TO_PIPE = Path("-")
PIECES_AT_ONCE = 8


def generate(args: argparse.Namespace) -> int:
    """`melody generate` and `melody loop`: prompts, or a clip as prompt, to files of music."""
    prompts = prompts_of(args)
    count = max(1, len(prompts)) * args.count
    if count > 1 and args.spectrogram is not None:
        raise ValueError(f"--spectrogram draws one piece of music; this makes {count}.")
    if count > 1 and args.midi is not None:
        raise ValueError(f"--midi writes the notes of one piece of music; this makes {count}.")
    outputs = _outputs(args.output, count)
    check_outputs(args, [*outputs, *([args.spectrogram] if args.spectrogram else [])], [args.audio_prompt])
    if args.midi is not None:
        check_midi_output(args, args.midi)
    seed = announce_seed(args)
    pipe, load_seconds = load("MeLoDyPipeline", args)
    from ..pipelines.plan import plan_of

    for start in range(0, count, PIECES_AT_ONCE):
        pieces = range(start, min(start + PIECES_AT_ONCE, count))
        texts = [prompts[piece // args.count] for piece in pieces] if prompts else None
        seeds = [seed + piece % args.count for piece in pieces]
        started = time.perf_counter()
        output = pipe(
            prompt=texts,
            audio_prompt=args.audio_prompt,
            audio_prompt_weight=args.audio_weight,
            audio_duration=args.duration,
            **length_of(args),
            num_waveforms_per_prompt=1 if texts else len(pieces),
            generator=generators(seeds),
            **sampling_of(args),
        )
        seconds = time.perf_counter() - started
        for row, piece in enumerate(pieces):
            comment = f"seed {seeds[row]}: {texts[row] if texts else f'like {args.audio_prompt}'}"
            plan = None if args.no_plan else plan_of(pipe, output, row)
            waveform = output.audios[row].cpu()
            write_piece(args, outputs[piece], waveform, pipe.sample_rate, comment, plan)
            if args.midi is not None:
                tempo = {"prompt": texts[row] if texts else None, "bpm": args.bpm, "beats_per_bar": args.beats_per_bar}
                tell(args, write_notes((pipe.sample_rate, waveform), args.midi, **tempo))
        summarise_pieces(args, output, pipe.sample_rate, seeds, seconds, load_seconds)
    return 0


def length_of(args: argparse.Namespace) -> dict[str, Any]:
    """How a piece goes around, or else ends."""
    if args.loop:
        return {"loop": True, "bars": args.bars, "bpm": args.bpm, "beats_per_bar": args.beats_per_bar}
    return {"ending": None if args.ending == "none" else args.ending}


def inpaint(args: argparse.Namespace) -> int:
    """`melody inpaint` and `melody continue`: fill a region of a recording, or go on after it, or lead into it."""
    if (args.start is None) != (args.end is None):
        raise ValueError("--start and --end belong together: they name the region to fill.")
    check_outputs(args, [args.output, *([args.spectrogram] if args.spectrogram else [])], [args.input])
    args.count = 1
    seed = announce_seed(args)
    pipe, load_seconds = load("MeLoDyInpaintPipeline", args)
    from .. import audio

    _check_fits(args.input, args.output)
    started = time.perf_counter()
    output = pipe(
        audio=args.input,
        regions=[] if args.start is None else [(args.start, args.end)],
        extend_seconds=(0.0 if args.before else 10.0) if args.after is None else args.after,
        prepend_seconds=args.before,
        prompt=args.prompt,
        generator=generators([seed]),
        **sampling_of(args) | {"output_type": "patches"},
    )
    seconds = time.perf_counter() - started
    comment = f"seed {seed}: {args.prompt or f'like {args.input}'}"
    patches, rate = [(start, waveform[0]) for start, waveform in output.audios], output.sampling_rate

    def save(target: Any, **options: Any) -> int:
        return audio.save_patched(target, args.input, patches, comment=comment, **options)

    whole = io.BytesIO()
    if args.spectrogram is not None:
        save(whole, format="wav")  # first, for the output may take the recording's place
    num_samples = deliver(args, args.output, save)
    if args.spectrogram is not None:
        write_spectrogram(args.spectrogram, audio.load_audio(whole, pipe.sample_rate), pipe.sample_rate)
    _tell_written(args, args.output)
    channels, made = len(patches[0][1]), sum(waveform.shape[1] for _, waveform in patches) / rate
    kind = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    summarise(args, f"{num_samples / rate:.2f} s, {rate} Hz, {kind}", made, output.gains, [seed], seconds, load_seconds)
    return 0


def _check_fits(source: str, output: Path) -> None:
    """Complain before minutes of work that a file of the output's kind cannot hold what the recording is."""
    from ..audio import patched_format
    from ..sound_files import open_sound

    with contextlib.suppress(OSError, RuntimeError), open_sound(source) as file:  # the pipeline complains of those
        patched_format(file, ".wav" if output == TO_PIPE else output.suffix.lower())


def write_spectrogram(path: Path, waveform: "torch.Tensor", sample_rate: int) -> None:
    """A PNG of the waveform (1, T), its bands three pixels high."""
    from PIL import Image, PngImagePlugin

    from ..sound_files import SOFTWARE
    from ..spectra import spectrogram_image

    image = Image.fromarray(spectrogram_image(waveform, sample_rate))
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Software", SOFTWARE)
    image.resize((image.width, 3 * image.height), Image.Resampling.BILINEAR).save(path, format="PNG", pnginfo=notes)


def prompts_of(args: argparse.Namespace) -> list[str]:
    """What is asked for; empty where a clip is the prompt."""
    given = [bool(args.prompt), args.prompts is not None]
    if sum(given) > 1 or not any(given) and args.audio_prompt is None:
        raise ValueError(
            "Give a prompt, or --prompts FILE, or --audio-prompt FILE. A recording may also go together with a prompt."
        )
    if args.prompts is not None:
        lines = [line.strip() for line in _read_text(args.prompts).splitlines()]
        prompts = [line for line in lines if line and not line.startswith("#")]
        if not prompts:
            raise ValueError(f"--prompts {args.prompts} holds no prompt; write one a line.")
        return prompts
    text = " ".join(args.prompt)
    if re.fullmatch(r"@\S.*", text):
        text = " ".join(_read_text(Path(text[1:])).split())
    return [text] if args.prompt else []


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r} to read a prompt from.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8.") from None


def _outputs(output: Path, count: int) -> list[Path]:
    """song.wav, or song-01.wav to song-12.wav."""
    if count == 1:
        return [output]
    if output == TO_PIPE:
        raise ValueError(f"-o - can take one piece of music; this makes {count}. Name a file.")
    digits = len(str(count))
    return [output.with_stem(f"{output.stem}-{number:0{digits}d}") for number in range(1, count + 1)]


def check_outputs(args: argparse.Namespace, outputs: list[Path], inputs: list[str | None]) -> None:
    """Complain before minutes of work, not after: what cannot be written, and what must not be overwritten."""
    from ..sound_files import FORMATS

    for path in outputs:
        flag = "--spectrogram" if path == args.spectrogram else "-o"
        if path == TO_PIPE and flag == "-o":
            if sys.stdout.isatty():
                raise ValueError("-o - writes sound, which a terminal cannot show: send it to a pipe or name a file.")
            continue
        if flag == "-o" and path.suffix.lower() not in FORMATS:
            raise ValueError(f"-o must end in {', '.join(FORMATS)}, or be -; got {str(path)!r}.")
        if not path.parent.is_dir():
            raise ValueError(f"{flag} {str(path)!r}: there is no folder {str(path.parent)!r}.")
        if path.is_dir():
            raise ValueError(f"{flag} {str(path)!r} is a folder; name a file in it.")
        if path.exists() and not args.overwrite:
            if any(source is not None and os.path.exists(source) and path.samefile(source) for source in inputs):
                raise ValueError(f"{flag} {str(path)!r} is the recording itself; choose another name, or --overwrite.")
            if not _is_ours(path):
                raise ValueError(
                    f"{flag} {str(path)!r} is there and was not made by melody; choose another name, or --overwrite."
                )
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
            if path.exists():
                with open(path, "r+b"):
                    pass
        except OSError as error:
            raise ValueError(f"{flag} {str(path)!r} cannot be written: {error.strerror}.") from None


def _is_ours(path: Path) -> bool:
    """Whether this command wrote the file: its notes say so."""
    import soundfile
    from PIL import Image

    from ..sound_files import SOFTWARE

    try:
        if path.suffix.lower() == ".png":
            with Image.open(path) as image:
                return image.info.get("Software") == SOFTWARE
        with soundfile.SoundFile(path) as file:
            return file.comment.startswith(SOFTWARE)
    except (OSError, RuntimeError, ValueError):
        return False


def announce_seed(args: argparse.Namespace) -> int:
    """The first seed, printed before anything can go wrong."""
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    if seed + args.count > 2**64:
        raise ValueError(f"--seed must leave room for {args.count} seeds below 2^64; got {seed}.")
    print(f"seed {seed}", file=sys.stderr, flush=True)
    return seed


def load(class_name: str, args: argparse.Namespace) -> tuple[Any, float]:
    """The pipeline, with the adapters that --lora names."""
    pipe, seconds = load_pipeline(class_name, args)
    started, scales = time.perf_counter(), {}
    for number, lora in enumerate(args.lora):
        match = re.fullmatch(r"(.+?)(?::(-?\d+(?:\.\d*)?|-?\.\d+))?", lora)
        source, scale = (lora, None) if match is None or os.path.exists(lora) else match.groups()
        pipe.load_lora_weights(source, adapter_name=f"lora_{number}")
        scales[f"lora_{number}"] = 1.0 if scale is None else float(scale)
    if scales:
        pipe.set_adapters(list(scales), list(scales.values()))
    return pipe, seconds + time.perf_counter() - started


def sampling_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that generate and inpaint have in common, by the pipelines' names."""
    return {
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance,
        "prompt_guidance_scale": args.prompt_guidance,
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "lm_guidance_scale": args.lm_guidance,
        "negative_prompt": args.negative_prompt,
        "continuation": args.continuation,
        "fade_seconds": args.fade,
        "output_type": "pt",
    }


def generators(seeds: list[int]) -> list["torch.Generator"]:
    import torch

    return [torch.Generator().manual_seed(seed) for seed in seeds]


def write_piece(
    args: argparse.Namespace,
    path: Path,
    waveform: "torch.Tensor",
    sample_rate: int,
    comment: str,
    plan: "MusicPlan | None" = None,
) -> None:
    """One piece, (1, T), to its file, its plan being the comment's last line; where that fails at the last moment, to
    another place, and says so."""
    from ..audio import save_audio
    from ..sound_files import MAX_OPUS_COMMENT_BYTES

    if plan is not None:
        whole = f"{' '.join(comment.split())}\n{plan.to_text()}"
        if path.suffix.lower() == ".opus" and len(whole.encode()) > MAX_OPUS_COMMENT_BYTES - 100:
            _warn(f"{path} has no room for a plan this long; .ogg, .flac and .wav do.")
        else:
            comment = whole

    def save(target: Any, **options: Any) -> None:
        save_audio(target, waveform, sample_rate, comment=comment, **options)

    deliver(args, path, save)
    if args.spectrogram is not None:
        write_spectrogram(args.spectrogram, waveform, sample_rate)
    _tell_written(args, path)


def deliver(args: argparse.Namespace, path: Path, save: Callable[..., Made]) -> Made:
    """What `save(path)` returns, or `save(file, format="wav")` for the standard output; where that fails at the last
    moment, the music goes to another place, and the error says so."""
    if path == TO_PIPE:
        with tempfile.TemporaryFile() as file:  # libsndfile seeks, which a pipe cannot
            made = save(file, format="wav")
            file.seek(0)
            try:
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            except BrokenPipeError:
                close_stdout()
                raise OSError("-o -: the pipe was closed before all of the sound was written.") from None
            return made
    try:
        return save(path)
    except OSError as error:
        rescued = Path(tempfile.mkdtemp(prefix="melody-"), path.name)
        save(rescued)
        raise OSError(f"{path} could not be written ({error}); the music is in {rescued}") from error


def _tell_written(args: argparse.Namespace, path: Path) -> None:
    tell(args, f"wrote {path}" + (f" and {args.spectrogram}" if args.spectrogram else ""))


def _warn(line: str) -> None:
    print(f"melody: warning: {line}", file=sys.stderr, flush=True)


def tell(args: argparse.Namespace, line: str) -> None:
    """Prints where the sound does not go; when nobody reads it, the work goes on."""
    try:
        print(line, file=sys.stderr if args.output == TO_PIPE else sys.stdout, flush=True)
    except BrokenPipeError:
        close_stdout()


def close_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def summarise(
    args: argparse.Namespace,
    audio: str,
    made_seconds: float,
    gains: "torch.Tensor",
    seeds: list[int],
    seconds: float,
    load_seconds: float,
) -> None:
    """What was written, how much of it was made, and how fast."""
    gain = float(gains.min())
    lines = {
        "audio": audio,
        "seconds taken": f"{seconds:.2f} (and {load_seconds:.2f} to load the model)",
        "real-time factor": f"{made_seconds / seconds:.2f}",
        "seed": ", ".join(map(str, dict.fromkeys(seeds))),
        "limiter gain": f"{gain:.3f}" + (" (the peak was within full scale)" if gain == 1 else ""),
    }
    for name, value in lines.items():
        tell(args, f"  {name:<18}{value}")


def summarise_pieces(
    args: argparse.Namespace, output: Any, sample_rate: int, seeds: list[int], seconds: float, load_seconds: float
) -> None:
    """`summarise` for pieces that were made as a whole."""
    duration, pieces = output.audios.shape[-1] / sample_rate, len(output.audios)
    audio = f"{f'{pieces} x ' if pieces > 1 else ''}{duration:.2f} s, {sample_rate} Hz, mono"
    summarise(args, audio, pieces * duration, output.gains, seeds, seconds, load_seconds)
