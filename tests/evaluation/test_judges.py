"""The judges: they learn what can be learned, ignore what they should, and their tempo is the tempo."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from melody_diffusers.evaluation.judges import (
    LOG_FLOOR,
    OCTAVE_RATIOS,
    TRIPLE_RATIOS,
    ClipJudge,
    augment_log_mel,
    estimate_bpm,
    tempo_matches,
)

LABELS = {"style": ["high", "low"], "family": ["steady", "pulsed"]}


def tones(generator: torch.Generator, count: int = 16) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One second of high or low tones, steady or pulsed, with their answers."""
    time = torch.arange(24000) / 24000
    answers = {question: torch.randint(2, (count,), generator=generator) for question in LABELS}
    hertz = torch.where(answers["style"] == 0, 2000.0, 300.0) * (1 + 0.3 * torch.rand(count, generator=generator))
    waveform = 0.3 * torch.sin(2 * torch.pi * hertz[:, None] * time)
    pulses = 0.5 + 0.5 * torch.sign(torch.sin(2 * torch.pi * 8 * time))
    return torch.where(answers["family"][:, None] == 1, waveform * pulses, waveform).unsqueeze(1), answers


def test_learns_both_questions_and_survives_a_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    judge = ClipJudge(LABELS, width=8)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=0.01)
    for _ in range(25):
        waveform, answers = tones(generator)
        logits = judge(augment_log_mel(judge.log_mel(waveform), generator))
        loss = sum(F.cross_entropy(logits[question], answers[question]) for question in LABELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    judge.eval().save_pretrained(tmp_path)
    judge = ClipJudge.from_pretrained(tmp_path).eval()
    waveform, answers = tones(generator, 40)
    for gain in (1.0, 0.2):  # the level says nothing about the music
        heard = judge.judge(gain * waveform)
        for question, names in LABELS.items():
            right = [names[i] == name for i, name in zip(answers[question].tolist(), heard[question], strict=True)]
            assert sum(right) >= 36, question


def test_level_does_not_reach_the_logits() -> None:
    judge = ClipJudge(LABELS, width=8).eval()
    log_mel = torch.randn(2, 50, 64)
    for question, logits in judge(log_mel).items():
        torch.testing.assert_close(judge(log_mel + 3.0)[question], logits, atol=1e-4, rtol=1e-4)


def test_augmentation_depends_on_its_generator_alone_and_keeps_the_floor() -> None:
    log_mel = torch.randn(8, 40, 64)
    a, b, c = (augment_log_mel(log_mel, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert a.shape == log_mel.shape and torch.equal(a, b) and not torch.equal(a, c)
    silence = torch.full((64, 40, 64), LOG_FLOOR).log()
    assert augment_log_mel(silence, torch.Generator().manual_seed(0)).min() >= silence[0, 0, 0]


@pytest.mark.parametrize("bpm", [80, 100, 126, 150])
def test_tempo_of_a_click_track(bpm: int) -> None:
    waveform = torch.zeros(1, 240000)
    click = torch.randn(600, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 0, 600)
    for beat in range(int(10 * bpm / 60)):
        start = round(beat * 60 / bpm * 24000)
        waveform[0, start : start + 600] += click[: 240000 - start]
    assert tempo_matches(estimate_bpm(waveform), bpm, ratios=OCTAVE_RATIOS)


def test_silence_has_no_tempo() -> None:
    assert estimate_bpm(torch.zeros(1, 48000)) == 0.0
    assert not tempo_matches(0.0, 120, ratios=TRIPLE_RATIOS)


@pytest.mark.parametrize(
    "estimated, ratios, expected",
    [
        (110.3, (1,), False),
        (110.5, (1,), True),
        (129.5, (1,), True),
        (60.0, (1,), False),
        (60.0, OCTAVE_RATIOS, True),
        (240.0, OCTAVE_RATIOS, True),
        (40.0, OCTAVE_RATIOS, False),
        (40.0, TRIPLE_RATIOS, True),
        (180.0, TRIPLE_RATIOS, False),
    ],
)
def test_tempo_matches_within_eight_percent(estimated: float, ratios: tuple, expected: bool) -> None:
    assert tempo_matches(estimated, 120, ratios=ratios) is expected
