"""The only place where seconds, samples, latent frames and semantic tokens convert into one another.

The paper's rates (sections 2 and 4): 24 kHz audio, one latent frame every 96 samples (250 Hz), 25 semantic tokens a
second. All arithmetic between counts is integer arithmetic, so that no rounding error grows with the length.
"""

import math
import numbers
from dataclasses import dataclass


def _ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
        raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}.")


def _check_seconds(seconds: float) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real) or not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"seconds must be a finite number of at least 0, got {seconds!r}.")


@dataclass(frozen=True)
class Timebase:
    """Sample rate, latent hop and token rate of one system, and every conversion between them.

    Args:
        sample_rate: samples a second.
        hop_samples: samples per latent frame.
        token_rate: semantic tokens a second; must divide `sample_rate`.
    """

    sample_rate: int = 24000
    hop_samples: int = 96
    token_rate: int = 25

    def __post_init__(self) -> None:
        for name in ("sample_rate", "hop_samples", "token_rate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
        if self.sample_rate % self.token_rate:
            raise ValueError(
                f"token_rate must divide sample_rate, got {self.token_rate} tokens for {self.sample_rate} samples."
            )

    @property
    def samples_per_token(self) -> int:
        """Samples one semantic token covers."""
        return self.sample_rate // self.token_rate

    @property
    def token_alignment(self) -> int:
        """Smallest number of tokens that ends exactly on a frame border; a crop may start at its multiples."""
        return self.hop_samples // math.gcd(self.samples_per_token, self.hop_samples)

    @property
    def frame_alignment(self) -> int:
        """Latent frames of `token_alignment` tokens."""
        return self.tokens_to_frames(self.token_alignment)

    def whole_token_frames(self, num_frames: int) -> int:
        """`num_frames` or the next number of latent frames that ends exactly on a token border."""
        _check_count("num_frames", num_frames)
        return _ceil_div(num_frames, self.frame_alignment) * self.frame_alignment

    def seconds_to_samples(self, seconds: float) -> int:
        """Nearest number of samples."""
        _check_seconds(seconds)
        return round(seconds * self.sample_rate)

    def frames_to_seconds(self, num_frames: int) -> float:
        """Duration of `num_frames` latent frames."""
        _check_count("num_frames", num_frames)
        return num_frames * self.hop_samples / self.sample_rate

    def frames_to_samples(self, num_frames: int) -> int:
        """Samples that `num_frames` latent frames decode to."""
        _check_count("num_frames", num_frames)
        return num_frames * self.hop_samples

    def samples_to_frames(self, num_samples: int) -> int:
        """Fewest latent frames that cover `num_samples`."""
        _check_count("num_samples", num_samples)
        return _ceil_div(num_samples, self.hop_samples)

    def samples_to_tokens(self, num_samples: int) -> int:
        """Fewest semantic tokens that cover `num_samples`."""
        _check_count("num_samples", num_samples)
        return _ceil_div(num_samples, self.samples_per_token)

    def frames_to_tokens(self, num_frames: int) -> int:
        """Fewest semantic tokens that cover `num_frames` latent frames."""
        _check_count("num_frames", num_frames)
        return _ceil_div(num_frames * self.hop_samples, self.samples_per_token)

    def tokens_to_frames(self, num_tokens: int) -> int:
        """Nearest number of latent frames (exact for multiples of `token_alignment`; halves round up)."""
        _check_count("num_tokens", num_tokens)
        return (2 * num_tokens * self.samples_per_token + self.hop_samples) // (2 * self.hop_samples)

    def frame_to_token(self, frame: int) -> int:
        """Index of the semantic token that covers the start of latent frame `frame`."""
        _check_count("frame", frame)
        return frame * self.hop_samples // self.samples_per_token


def chunk_boundaries(num_frames: int, num_chunks: int) -> tuple[int, ...]:
    """The M + 1 borders L_m = floor(m L / M) that cut L frames into M chunks, from 0 to L (paper, section 4.1)."""
    _check_count("num_frames", num_frames)
    _check_count("num_chunks", num_chunks)
    if not 1 <= num_chunks <= num_frames:
        raise ValueError(f"num_chunks must lie between 1 and num_frames = {num_frames}, got {num_chunks}.")
    return tuple(m * num_frames // num_chunks for m in range(num_chunks + 1))
