"""Long pieces: figures of signals whose sections, endings and slopes are known."""

import math

import numpy as np
import pytest
import torch

from melody_diffusers.evaluation.long_pieces import (
    choose_long_prompts,
    choose_long_windows,
    drift_figures,
    ending_figures,
    long_table,
    section_contrast,
)

RATE = 24000
C_MAJOR, A_MINOR, B_MAJOR = (0, 4, 7), (9, 12, 16), (11, 15, 18)


def chords(*names: tuple[int, ...], seconds: float = 1.0) -> torch.Tensor:
    """Struck chords, one after the other: (T,), semitones over middle C, with an octave below."""
    time = torch.arange(round(seconds * RATE)) / RATE
    hertz = [[261.63 * 2 ** ((note + octave) / 12) for note in name for octave in (0, -12)] for name in names]
    return torch.cat([0.05 * sum(torch.sin(2 * math.pi * f * time) for f in of) * torch.exp(-2 * time) for of in hertz])


def looped(loop: torch.Tensor, seconds: int) -> torch.Tensor:
    return loop.repeat(seconds * RATE // len(loop) + 1)[: seconds * RATE]


def test_a_loop_has_no_sections_and_other_chords_are_one() -> None:
    loop = looped(chords(C_MAJOR), 30)
    four_bars = looped(chords(C_MAJOR, A_MINOR, B_MAJOR, A_MINOR, seconds=0.6), 30)
    near, far = (
        torch.cat([looped(chords(name), 10) for name in (C_MAJOR, other, C_MAJOR)]) for other in (A_MINOR, B_MAJOR)
    )
    of_loop, of_bars, of_near, of_far = section_contrast(
        torch.stack([loop, four_bars, near, far]).unsqueeze(1)
    ).tolist()
    assert of_loop < 0.01 and of_bars < 0.05
    assert of_bars < of_near / 2 and of_near < of_far < 1  # A minor shares two notes of C major, B major none
    assert of_far > 0.25
    with pytest.raises(ValueError, match="at least two seconds"):
        section_contrast(torch.zeros(1, 1, RATE))


def test_the_contrast_is_of_the_music_and_not_of_its_level() -> None:
    piece = torch.cat([looped(chords(C_MAJOR), 10), looped(chords(B_MAJOR), 10)])[None, None]
    torch.testing.assert_close(section_contrast(0.5 * piece), section_contrast(piece), atol=0.02, rtol=0)
    assert section_contrast(torch.zeros(1, 1, 20 * RATE)) == 0
    noise = 0.1 * torch.randn(1, 1, 20 * RATE, generator=torch.Generator().manual_seed(0))
    assert section_contrast(noise) < 0.02  # no sections, and no pitch to compare


def test_a_cut_a_fade_and_a_last_chord() -> None:
    time = torch.arange(20 * RATE) / RATE
    sine = 0.3 * torch.sin(2 * math.pi * 440 * time)
    fade = sine * ((20 - time) / 4).clamp(max=1)  # to nothing within four seconds
    final = sine * torch.where(time < 15, 1, 4 * torch.exp(-0.6 * (time - 15)))  # loud, and 23 dB down at last
    figures = ending_figures(torch.stack([sine, fade, final]).unsqueeze(1))
    assert figures["closes"].tolist() == [0, 1, 1]
    assert figures["closes_elsewhere"].tolist() == [0, 0, 0]
    last = 20 * math.log10(0.25 / math.sqrt(3))  # of a ramp from a quarter of the amplitude to nothing
    whole = 10 * math.log10((16 + 4 / 3) / 20)
    assert figures["last_second_db"].tolist()[:2] == pytest.approx([0, last - whole], abs=0.02)


def test_a_cut_in_music_with_rests_is_told_by_the_cuts_elsewhere() -> None:
    time = torch.arange(20 * RATE) / RATE
    sine = 0.3 * torch.sin(2 * math.pi * 440 * time) * (time % 1 < 0.5)  # every other half second rests
    figures = ending_figures(sine[None, None])
    assert figures["closes"].item() == 1 and figures["closes_elsewhere"].item() == 0.5


def test_slopes_of_level_and_brightness() -> None:
    time = torch.arange(60 * RATE, dtype=torch.float64) / RATE
    softer = 0.5 * torch.sin(2 * math.pi * 1000 * time) * 10 ** (-6 * time / 60 / 20)
    phase = 2 * math.pi * 500 * 60 / math.log(2) * (2 ** (time / 60) - 1)  # 500 to 1000 Hz in a minute
    figures = drift_figures(torch.stack([softer, 0.5 * torch.sin(phase)]).float().unsqueeze(1))
    assert figures["loudness_slope"].tolist() == pytest.approx([-6, 0], abs=0.01)
    assert figures["centroid_slope"].tolist() == pytest.approx([0, 1], abs=0.05)
    softer[55 * RATE :] *= 0.01  # an ending is no drift
    assert drift_figures(softer.float()[None, None])["loudness_slope"].item() == pytest.approx(-6, abs=0.01)


def rows(count: int = 12, seconds: int = 60) -> list[dict]:
    classes = [("rock", "guitar"), ("waltz", "piano"), ("folk", "strings")]
    return [
        {
            "piece_id": str(i),
            "style": classes[i % 3][0],
            "family": classes[i % 3][1],
            "captions": [f"caption {i}"],
            "prompts": [
                {"text": f"style {i}", "named": ["style"]},
                {"text": f"both {i}", "named": ["style", "family"]},
            ],
            "bpm": 90,
            "meter": "4/4",
            "samples": np.arange(i + 100 * seconds, dtype=np.int16),
        }
        for i in range(count)
    ]


def test_long_prompts_name_style_and_lead_and_differ_in_style() -> None:
    pieces = choose_long_prompts(rows(), {}, 3, 60.0, seed=0)
    assert {piece.expected["style"] for piece in pieces} == {"rock", "waltz", "folk"}
    assert all(piece.text.startswith("both") and piece.seconds == 60 and piece.bpm is None for piece in pieces)
    assert len({piece.seed for piece in pieces}) == 3 and len(choose_long_prompts(rows(), {}, 9, 60.0, seed=0)) == 9


def test_hand_written_prompts_serve_where_the_data_set_has_none() -> None:
    hand_written = {
        "style": {
            "rock": {"prompts": ["rock", "rock with fiddles"]},
            "waltz": {"prompts": ["a waltz for violin, piano"]},
        },
        "family": {"strings": {"names": ["fiddle", "violin"], "prompts": []}},
    }
    without = [{name: value for name, value in row.items() if name != "prompts"} for row in rows()]
    pieces = choose_long_prompts(without, hand_written, 8, 20.0, seed=0)
    assert len(pieces) == 3 and pieces[0].expected == {"style": "rock", "family": "strings"}
    assert [piece.expected for piece in pieces if "waltz" in piece.text] == [{"style": "waltz"}]  # of two, which leads?
    assert choose_long_prompts(without, {}, 8, 20.0, seed=0) == []


def test_real_long_pieces_end_where_their_clips_end() -> None:
    chosen = choose_long_windows(rows(), {}, 4, 60.0, sample_rate=100, seed=0)
    assert len({clip.piece for _, clip in chosen}) == 4
    for window, clip in chosen:
        assert len(window["samples"]) == 6000 and window["samples"][-1] == 5999 + int(clip.piece)
        assert clip.expected == {"style": window["style"], "family": window["family"]}
    assert choose_long_windows(rows(seconds=20), {}, 4, 60.0, sample_rate=100, seed=0) == []


def test_a_row_of_the_table() -> None:
    row = {"clips": 2, "section_contrast": 0.25, "closes": 0.5, "closes_elsewhere": 0.125, "last_second_db": -7.25}
    row |= {"loudness_slope": -1.0, "loudness_slope_size": 2.0, "centroid_slope": 0.5, "centroid_slope_size": 0.5}
    row |= {"first": {"style": {"share": 1.0}}, "last": {"style": {"share": 0.5}}}
    cells = "0.25 | 50% (12%) | -7.2 | 100%, 50% | - | -1.00 (2.00) | +0.50 (0.50)"
    assert long_table({"long pieces": row})[-1] == f"| long pieces, 2 | {cells} |"
