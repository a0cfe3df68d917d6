import pytest
import torch

from melody_diffusers.models.segmentation import (
    merge_segments,
    num_segments,
    overlap_add,
    repeat_segments,
    segment,
)


def test_paper_segment_count():
    assert num_segments(2500, 64) == 80


@pytest.mark.parametrize("num_frames", [1, 2, 7, 8, 9, 125, 500])
@pytest.mark.parametrize("segment_length", [2, 8, 32])
def test_overlap_add_inverts_segment_exactly(num_frames, segment_length):
    frames = torch.randn(2, num_frames, 3)
    segments = segment(frames, segment_length)
    assert segments.shape == (2, num_segments(num_frames, segment_length), segment_length, 3)
    assert torch.equal(overlap_add(segments, num_frames), frames)


def test_segment_s_covers_the_frames_its_docstring_names():
    frames = torch.arange(1.0, 21.0).reshape(1, 20, 1)
    segments = segment(frames, 8)[0, ..., 0]
    for s, row in enumerate(segments):
        expected = [i + 1 if 0 <= i < 20 else 0 for i in range((s - 1) * 4, (s + 1) * 4)]
        assert row.tolist() == expected


def test_every_frame_lies_in_exactly_two_segments():
    assert segment(torch.ones(1, 37, 1), 8).sum() == 2 * 37


def test_merging_averages_neighbours_and_repeating_restores_constant_groups():
    segments = torch.arange(8.0).reshape(1, 1, 8, 1)
    assert merge_segments(segments, 4).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]
    merged = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(merge_segments(repeat_segments(merged, 16), 4), merged)
