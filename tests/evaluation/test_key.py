"""Keys: read from words, related by their notes, and heard alike at any pitch."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from melody_diffusers.evaluation.key import KEYS, KeyJudge, named_key, relative_key


@pytest.mark.parametrize(
    "text, key",
    [
        ("A waltz in C# minor, 120 bpm", "C# minor"),
        ("in the key of F sharp harmonic minor", "F# minor"),
        ("E flat mixolydian major", "Eb major"),
        ("piano, Db dorian", "C# minor"),
        ("Key: Cb lydian.", "B major"),
        ("a string quartet in a minor key", None),
        ("A minor key, then nothing", None),
        ("major tom", None),
    ],
)
def test_keys_are_read_from_texts(text: str, key: str | None) -> None:
    assert named_key(text) == key


def test_relative_keys_come_in_pairs() -> None:
    assert relative_key("C major") == "A minor" and relative_key("F# minor") == "A major"
    assert all(relative_key(relative_key(key)) == key for key in KEYS)


def test_a_transposition_turns_the_answers_and_nothing_else() -> None:
    torch.manual_seed(0)
    judge = KeyJudge(width=8).eval()
    frames = torch.randn(2, 20, 72)
    logits = judge(frames).unflatten(-1, (2, 12))
    for semitones in range(12):
        turned = frames.unflatten(-1, (6, 12)).roll(semitones, -1).flatten(-2)
        expected = logits.roll(semitones, -1).flatten(1)
        torch.testing.assert_close(judge(turned), expected, atol=1e-5, rtol=1e-4)


def scales(keys: torch.Tensor) -> torch.Tensor:
    """Two seconds (B, 1, 48000) of the notes of each key one after the other, the tonic longest, in two octaves."""
    steps = {0: (0, 0, 2, 4, 5, 7, 9, 11), 1: (0, 0, 2, 3, 5, 7, 8, 10)}
    time = torch.arange(6000) / 24000
    clips = []
    for key in keys.tolist():
        hertz = [130.8 * 2 ** ((key % 12 + step) / 12) for step in steps[key // 12]]
        clips.append(torch.cat([sum(torch.sin(6.2832 * h * f * time) for f in (1, 2)) for h in hertz]))
    return 0.2 * torch.stack(clips).unsqueeze(1)


def test_learns_scales_and_survives_a_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    judge = KeyJudge(width=8)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=0.01)
    keys = torch.arange(24)
    frames = judge.log_semitones(scales(keys))
    for _ in range(40):
        loss = F.cross_entropy(judge(frames + 0.3 * torch.randn(frames.shape)), keys)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    judge.eval().save_pretrained(tmp_path)
    judge = KeyJudge.from_pretrained(tmp_path).eval()
    for gain in (1.0, 0.3):
        heard = judge.judge(gain * scales(keys))
        assert sum(answer == key for answer, key in zip(heard, KEYS, strict=True)) >= 22
