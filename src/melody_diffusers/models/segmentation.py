"""Frames <-> half-overlapping segments (paper, section 4.2, "segmentation" and "overlap-add").

A latent sequence of L frames becomes S = ceil(2L / K) + 1 segments of length K, each overlapping its neighbour by
half, zero-padded at both ends. Every frame lies in exactly two segments. With K near sqrt(2L), a path between the
segments and a path within a segment both see sequences of O(sqrt(L)).

Shapes: B batch, L frames, S segments, K segment length (even), D channels.
"""

import torch
import torch.nn.functional as F


def num_segments(num_frames: int, segment_length: int) -> int:
    """S = ceil(2L / K) + 1: 80 for the paper's L = 2500, K = 64."""
    return -(-2 * num_frames // segment_length) + 1


def segment(frames: torch.Tensor, segment_length: int) -> torch.Tensor:
    """(B, L, D) -> (B, S, K, D). Segment s covers the frames from (s - 1) K/2 up to (s + 1) K/2."""
    hop = segment_length // 2
    num_frames = frames.shape[1]
    padding = num_segments(num_frames, segment_length) * hop - num_frames  # behind; one hop in front
    padded = F.pad(frames, (0, 0, hop, padding))
    return padded.unfold(1, segment_length, hop).transpose(2, 3)  # (B, S, K, D)


def overlap_add(segments: torch.Tensor, num_frames: int) -> torch.Tensor:
    """(B, S, K, D) -> (B, L, D): the mean of the two segments that hold each frame; exact inverse of `segment`."""
    hop = segments.shape[2] // 2
    blocks = (segments[:, 1:, :hop] + segments[:, :-1, hop:]) / 2  # (B, S - 1, K/2, D)
    return blocks.flatten(1, 2)[:, :num_frames]


def merge_segments(segments: torch.Tensor, width: int) -> torch.Tensor:
    """Average groups of neighbouring columns: (B, S, K, D) -> (B, S, width, D); width divides K."""
    return segments.unflatten(2, (width, -1)).mean(3)


def repeat_segments(segments: torch.Tensor, segment_length: int) -> torch.Tensor:
    """Repeat each column until K are there again: (B, S, width, D) -> (B, S, K, D)."""
    return segments.repeat_interleave(segment_length // segments.shape[2], dim=2)
