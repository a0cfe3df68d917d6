"""MuLan cycle consistency (MCC): does the music sound like what its prompt says? (MusicLM and the paper, section 5.)

The cosine of a clip's audio embedding and its prompt's text embedding, averaged over pairs. On its own the figure has
no scale, so it comes with the same mean over all *wrong* pairs: every clip with every other clip's prompt.

The embeddings come from the MuLan model that also conditioned the music, so the figure is self-referential: a system
can please its own judge. Read it beside the hit rates of the independent judges and beside the MCC of real clips.
"""

import torch
import torch.nn.functional as F


def mulan_cycle_consistency(audio_embeds: torch.Tensor, text_embeds: torch.Tensor) -> tuple[float, float]:
    """The mean cosine of the true pairs and the mean cosine of all wrong pairs.

    The second is the exact expectation over all ways of shuffling the prompts so that none stays in place.

    Args:
        audio_embeds: (B, E), clip i was made from prompt i; need not be normalised.
        text_embeds: (B, E).

    Returns:
        (matched, shuffled), each in [-1, 1].
    """
    if audio_embeds.shape != text_embeds.shape or audio_embeds.ndim != 2 or len(audio_embeds) < 2:
        raise ValueError(
            "audio_embeds and text_embeds are both (B, E) with B >= 2, got "
            f"{tuple(audio_embeds.shape)} and {tuple(text_embeds.shape)}"
        )
    audio, text = (F.normalize(embeds.cpu().double(), dim=-1) for embeds in (audio_embeds, text_embeds))
    cosines = audio @ text.T  # (B, B)
    matched = cosines.diagonal().mean()
    count = len(cosines)
    shuffled = (cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))
    return matched.item(), shuffled.item()
