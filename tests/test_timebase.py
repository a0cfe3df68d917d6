import itertools
from fractions import Fraction
from math import ceil, floor

import pytest

from melody_diffusers.timebase import Timebase, chunk_boundaries

PAPER = Timebase()
TINY = Timebase(hop_samples=480)
ODD = Timebase(sample_rate=24000, hop_samples=384, token_rate=25)  # 2.5 frames to a token
ALL = (PAPER, TINY, ODD)


def test_ten_seconds_of_the_paper():
    assert PAPER.seconds_to_samples(10.0) == 240_000
    assert PAPER.samples_to_frames(240_000) == 2500
    assert PAPER.samples_to_tokens(240_000) == 250
    assert PAPER.samples_per_token == 960
    assert chunk_boundaries(2500, 4) == (0, 625, 1250, 1875, 2500)


@pytest.mark.parametrize("timebase", ALL)
def test_counts_equal_exact_fractions(timebase):
    frames_per_token = Fraction(timebase.samples_per_token, timebase.hop_samples)
    for n in (*range(0, 300), 10**9 + 7):
        assert timebase.samples_to_frames(n) == ceil(Fraction(n, timebase.hop_samples))
        assert timebase.samples_to_tokens(n) == ceil(Fraction(n, timebase.samples_per_token))
        assert timebase.frames_to_tokens(n) == ceil(n / frames_per_token)
        assert timebase.tokens_to_frames(n) == floor(n * frames_per_token + Fraction(1, 2))
        assert timebase.frame_to_token(n) == floor(n / frames_per_token)
        assert timebase.samples_to_frames(timebase.frames_to_samples(n)) == n


@pytest.mark.parametrize("timebase", ALL)
def test_aligned_tokens_and_frames_are_inverse(timebase):
    for n in range(0, 100 * timebase.token_alignment, timebase.token_alignment):
        assert timebase.frames_to_tokens(timebase.tokens_to_frames(n)) == n
        assert timebase.frame_to_token(timebase.tokens_to_frames(n)) == n
        assert timebase.frames_to_samples(timebase.tokens_to_frames(n)) == n * timebase.samples_per_token
    assert (PAPER.token_alignment, TINY.token_alignment, ODD.token_alignment) == (1, 1, 2)


def test_seconds_have_no_frame_too_many():
    for frames in range(1, 3000):  # n / 250 is rarely exact in binary
        samples = PAPER.seconds_to_samples(PAPER.frames_to_seconds(frames))
        assert PAPER.samples_to_frames(samples) == frames


def test_chunks_partition_any_length():
    for num_frames, num_chunks in itertools.product((4, 7, 101, 2500), (1, 2, 3, 4)):
        borders = chunk_boundaries(num_frames, num_chunks)
        sizes = [end - start for start, end in itertools.pairwise(borders)]
        assert borders[0] == 0 and sum(sizes) == num_frames and max(sizes) - min(sizes) <= 1
        assert all(borders[m] == floor(Fraction(m * num_frames, num_chunks)) for m in range(num_chunks + 1))


@pytest.mark.parametrize(
    "call",
    [
        lambda: PAPER.seconds_to_samples(float("nan")),
        lambda: PAPER.seconds_to_samples(-1.0),
        lambda: PAPER.seconds_to_samples(float("inf")),
        lambda: PAPER.samples_to_frames(-1),
        lambda: PAPER.frames_to_tokens(1.5),
        lambda: chunk_boundaries(3, 4),
        lambda: chunk_boundaries(3, 0),
        lambda: Timebase(hop_samples=0),
        lambda: Timebase(token_rate=7),
    ],
)
def test_bad_input_is_named(call):
    with pytest.raises(ValueError, match="got"):
        call()


def test_whole_tokens_end_where_a_frame_ends():
    tiny, paper = Timebase(24000, 480, 25), Timebase()
    assert (tiny.frame_alignment, paper.frame_alignment) == (2, 10)
    assert [tiny.whole_token_frames(n) for n in (0, 1, 2, 625)] == [0, 2, 2, 626]
    assert Timebase(24000, 512, 25).whole_token_frames(1) == 15  # 8 tokens
