"""Decodes audio of unknown origin in a child process, which a damaged or hostile file may bring down.

`Decoder` keeps one child, sends it one file at a time, and starts another when it died or took too long. The child
imports nothing but numpy, soundfile and soxr, limits its own memory and processor time, and decodes a second at a time,
so that neither a file's length nor what its header claims decides how much memory it takes.
"""

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import soundfile
import soxr

from ..sound_files import NeedsPyAV, SoundFile, open_sound
from .outlines import Outline

SAMPLE_RATES = (8_000, 192_000)
MAX_CHANNELS = 8
MAX_PEAK = 4.0  # 12 dB above full scale: lossy codecs and float masters overshoot, but not by that much
MAX_EXPANSION = 300  # float samples to bytes of the file; speech at 6 kbit/s reaches 256
UNSUSPICIOUS_BYTES = 64 << 20  # files that decode to less than this may expand as they like
CHILD_BYTES = 512 << 20  # of address space, besides what the libraries take
UNKNOWN_BYTES = 0x7FFF0000  # programs that write to pipes leave such sizes in headers

REASONS = {
    "unreadable": "it cannot be opened: permissions, a link that leads nowhere or in circles",
    "not_a_file": "a folder, a pipe or a device with the name of an audio file, or a folder that cannot be listed",
    "not_audio": "no format that libsndfile or PyAV knows, whatever the suffix says",
    "needs_pyav": "M4A, WMA, WebM or a video: pip install 'melody-diffusers[formats]', or convert it",
    "corrupt": "decoding it fails, at its header or midway",
    "truncated": "it ends before its header says, or an Ogg stream before its last page",
    "too_short": "shorter than the least of a loop",
    "too_long": "longer than the maximum",
    "too_large": "it would expand by a factor beyond all music, or decoding it takes more memory than allowed",
    "bad_rate": f"its sample rate lies outside {SAMPLE_RATES[0]} to {SAMPLE_RATES[1]} Hz",
    "too_many_channels": f"it has more than {MAX_CHANNELS} channels",
    "not_finite": "it holds NaN or infinite samples",
    "out_of_range": f"it holds samples beyond {MAX_PEAK:g} times full scale",
    "silent": "quieter than the minimum throughout, as a mean of its channels",
    "timeout": "decoding it takes too long",
    "crashed": "the process that decoded it died",
    "duplicate": "the same bytes as an earlier file that was accepted",
    "bad_caption": "the caption file beside it cannot be read",
}


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """What is accepted and how it is cut.

    Args:
        sample_rate: of the clips.
        clip_seconds: recordings are cut into clips of this length; what remains is a clip if it has `min_seconds`.
        loop_seconds: a recording shorter than `min_seconds` is one clip, a loop say, if it is at least so long.
        max_seconds: of a recording.
        min_level_db: RMS level relative to full scale; quieter clips are left out.
        timeout_seconds: for one recording.
    """

    sample_rate: int = 24000
    clip_seconds: float = 20.0
    min_seconds: float = 10.0
    loop_seconds: float = 2.0
    max_seconds: float = 3600.0
    min_level_db: float = -60.0
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        if not 0 < self.min_seconds <= self.clip_seconds <= 600 or not self.min_seconds <= self.max_seconds < math.inf:
            raise ValueError(
                "Need 0 < min_seconds <= clip_seconds <= 600 and min_seconds <= max_seconds, got "
                f"{self.min_seconds:g}, {self.clip_seconds:g} and {self.max_seconds:g}."
            )
        if not 0 < self.loop_seconds <= 600:
            raise ValueError(f"loop_seconds must lie in (0, 600], got {self.loop_seconds:g}.")
        if not -120 <= self.min_level_db < 0:
            raise ValueError(f"min_level_db must lie in [-120, 0), got {self.min_level_db:g}.")
        if not 0 < self.timeout_seconds <= 86_400:
            raise ValueError(f"timeout_seconds must lie in (0, 86400], got {self.timeout_seconds:g}.")
        if not SAMPLE_RATES[0] <= self.sample_rate <= SAMPLE_RATES[1]:
            raise ValueError(f"sample_rate must lie within {SAMPLE_RATES}, got {self.sample_rate}.")


class Decoder:
    """Decodes one file after another in a child process.

    `decode` may be called from one thread at a time; `close`, or leaving the context, ends the child.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self.limits = limits
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decode(self, path: str, spool: str) -> dict[str, Any]:
        """What was found out about the file, and its `reason` (None, or a key of `REASONS`).

        The clips are written to the file `spool` one after the other, as 16-bit FLAC, mono; `clips` lists
        [bytes, start in seconds, seconds] for each.

        Raises:
            OSError: the clips cannot be written, which is not the file's fault.
        """
        process = self._start() if self._process is None else self._process
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.limits.timeout_seconds, end)
        timer.start()
        try:
            process.stdin.write(json.dumps([path, spool]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:  # it died before it read the request
            answer = ""
        finally:
            timer.cancel()
        if answer.endswith("\n") and not late.is_set():
            found = json.loads(answer)
            if "cannot_write" in found:
                raise OSError(f"Cannot write {spool}: {found['cannot_write']}.")
            return found
        self.close()
        if late.is_set() or process.returncode == -int(getattr(signal, "SIGXCPU", 1000)):
            return _refusal({}, "timeout", f"more than {self.limits.timeout_seconds:g} s")
        return _refusal({}, "crashed", f"exit code {process.returncode}")

    def close(self) -> None:
        """Ends the child; the next file starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # a request that it never read
                    pipe.close()

    def _start(self) -> subprocess.Popen:
        # the search path is passed on, so that the child finds what this process found
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
        one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | one_thread,
            encoding="ascii",
        )
        self._process.stdin.write(json.dumps(asdict(self.limits)) + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "ready\n":
            self.close()
            raise RuntimeError("The process that decodes audio does not start; the lines above say why.")
        return self._process


def serve() -> None:
    """The child: limits on the first line of stdin, then one request a line; answers on stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    limits = DecodeLimits(**json.loads(sys.stdin.readline()))
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    _limit_memory()
    print("ready", file=answers, flush=True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # what libraries print about damaged files
        os.dup2(nowhere, descriptor)
    for line in sys.stdin:
        _limit_processor_time(limits.timeout_seconds)
        path, spool = json.loads(line)
        print(json.dumps(decode_file(path, spool, limits)), file=answers, flush=True)


class _Refused(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class _CannotWrite(Exception):
    pass


def decode_file(path: str, spool: str, limits: DecodeLimits) -> dict[str, Any]:
    """What `Decoder.decode` gives, in this process."""
    facts: dict[str, Any] = {}
    try:
        _inspect(path, spool, limits, facts)
    except _Refused as refused:
        return _refusal(facts, refused.reason, refused.detail)
    except _CannotWrite as error:
        return {"cannot_write": str(error)}
    except MemoryError:
        return _refusal(facts, "too_large", "decoding it takes more memory than allowed")
    except NeedsPyAV as error:
        return _refusal(facts, "needs_pyav", str(error))
    except soundfile.LibsndfileError as error:
        reason = "not_audio" if error.code in (1, 4) else "corrupt"  # unknown format, unknown encoding
        return _refusal(facts, reason, error.error_string)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        return _refusal(facts, "corrupt", f"{type(error).__name__} in the decoder")
    except OSError as error:
        return _refusal(facts, "unreadable", str(error.strerror))
    return facts | {"reason": None, "detail": None}


def _refusal(facts: dict[str, Any], reason: str, detail: str) -> dict[str, Any]:
    return facts | {"clips": [], "reason": reason, "detail": detail}


def _inspect(path: str, spool: str, limits: DecodeLimits, facts: dict[str, Any]) -> None:
    """Fills `facts` from the top of the file to its end and writes its clips, until something is wrong."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise _Refused("not_a_file", "a folder, pipe or device")
    with open(path, "rb") as bytes_of_file:
        digest = hashlib.sha256()
        while block := bytes_of_file.read(1 << 20):
            digest.update(block)
        num_bytes = bytes_of_file.tell()
    facts["sha256"] = digest.hexdigest()
    with open_sound(path) as file:
        facts |= {"format": file.format, "rate": file.rate, "channels": file.channels}
        facts["seconds"] = None if file.frames is None else round(file.frames / file.rate, 3)
        _check_header(file, num_bytes, limits)
        early = _ends_early(file, path)
        if early is not None:
            raise _Refused("truncated", early)
        facts["genre"] = file.genre or None
        try:
            _write_clips(file, num_bytes, spool, limits, facts)
        except OSError as error:  # libsndfile raises none
            raise _CannotWrite(error.strerror) from error


def _check_header(file: SoundFile, num_bytes: int, limits: DecodeLimits) -> None:
    if not SAMPLE_RATES[0] <= file.rate <= SAMPLE_RATES[1]:
        raise _Refused("bad_rate", f"{file.rate} Hz")
    if file.channels > MAX_CHANNELS:
        raise _Refused("too_many_channels", f"{file.channels} channels")
    _check_length(file, file.frames or 0, num_bytes, limits)


def _check_length(file: SoundFile, num_samples: int, num_bytes: int, limits: DecodeLimits) -> None:
    """Of what the header promises, and of what has been read."""
    decoded = num_samples * file.channels * 4
    if decoded > UNSUSPICIOUS_BYTES and decoded > MAX_EXPANSION * num_bytes:
        raise _Refused("too_large", f"{num_bytes} bytes would become {decoded}")
    if num_samples > limits.max_seconds * file.rate:
        raise _Refused("too_long", f"{num_samples / file.rate:.1f} s")


def _ends_early(file: SoundFile, path: str) -> str | None:
    """How the file tells that bytes are missing at its end, or None. To libsndfile it is merely shorter."""
    # which notes the difference in its log: "data : 576000 (should be 287957)"
    found = re.search(r"^\s*(?:data|SSND|Data Size|riff)\s*:\s*(\d+) \(should be (\d+)\)", file.notes, re.MULTILINE)
    if found is not None:
        said, there = map(int, found.groups())
        if there < said < UNKNOWN_BYTES:
            return f"its header says {said} bytes, {there} are there"
    if file.format.startswith("OGG "):
        with open(path, "rb") as bytes_of_file:
            bytes_of_file.seek(max(0, bytes_of_file.seek(0, os.SEEK_END) - (1 << 17)))  # a page has at most 64 KiB
            end = bytes_of_file.read()
        page = end.rfind(b"OggS")
        if page < 0 or len(end) <= page + 5 or not end[page + 5] & 4:
            return "its last page is missing"
    return None


def _write_clips(file: SoundFile, num_bytes: int, spool: str, limits: DecodeLimits, facts: dict[str, Any]) -> None:
    rate = limits.sample_rate
    clip_samples, min_samples = round(limits.clip_seconds * rate), round(limits.min_seconds * rate)
    least_samples = round(min(limits.loop_seconds, limits.min_seconds) * rate)
    outline = Outline(rate)
    clips, start, energy, total = [], 0, 0.0, 0
    pending = np.zeros(0, np.float32)
    with open(spool, "wb") as output:

        def cut(samples: np.ndarray) -> None:
            nonlocal start
            level = _level_db(float(np.square(samples, dtype=np.float64).sum()), len(samples))
            if level >= limits.min_level_db:
                flac = io.BytesIO()
                pcm = np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)
                soundfile.write(flac, pcm, rate, format="FLAC", subtype="PCM_16")
                clips.append([output.write(flac.getbuffer()), round(start / rate, 3), round(len(samples) / rate, 3)])
            start += len(samples)

        for block in _mono_blocks(file, num_bytes, limits, facts):
            energy += float(np.square(block, dtype=np.float64).sum())
            total += len(block)
            outline.add(block)
            pending = np.concatenate([pending, block])
            while len(pending) >= clip_samples:
                cut(pending[:clip_samples])
                pending = pending[clip_samples:]
        if len(pending) >= (min_samples if start else least_samples):
            cut(pending)
    facts["seconds"] = round(total / rate, 3)
    facts["level_db"] = round(_level_db(energy, total), 2)
    facts["outline"] = outline.hex()
    if total < least_samples:
        raise _Refused("too_short", f"{total / rate:.2f} s")
    if not clips:
        raise _Refused("silent", f"{facts['level_db']:g} dB")
    facts["clips"] = clips


def _mono_blocks(file: SoundFile, num_bytes: int, limits: DecodeLimits, facts: dict[str, Any]) -> Iterator[np.ndarray]:
    """The mean of all channels at the sample rate of the clips, about a second at a time."""
    from_rate, to_rate = file.rate, limits.sample_rate
    resampler = None if from_rate == to_rate else soxr.ResampleStream(from_rate, to_rate, 1, "float32", "HQ")
    num_read, num_given, peak = 0, 0, 0.0
    last = np.zeros((0, file.channels), np.float32)
    for block in itertools.chain(file.blocks(from_rate), [last]):  # (T, C)
        num_read += len(block)
        if not np.isfinite(block).all():
            raise _Refused("not_finite", f"within the second that ends at {num_read / from_rate:.2f} s")
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        facts["peak"] = round(peak, 4)
        if peak > MAX_PEAK:
            raise _Refused("out_of_range", f"a peak of {peak:.3g}")
        if file.frames is None:
            _check_length(file, num_read, num_bytes, limits)
        mono = block @ np.full(block.shape[1], 1 / block.shape[1], np.float32)
        if resampler is not None:
            mono = resampler.resample_chunk(mono, last=block is last)
        if block is last:  # resamplers may end a sample early or late
            left = round(num_read * to_rate / from_rate) - num_given
            mono = np.pad(mono[:left], (0, left - len(mono[:left])))
        num_given += len(mono)
        yield mono
    if num_read < (file.frames or 0) - file.spare:
        raise _Refused("truncated", f"its header says {file.frames} samples, {num_read} are there")


def _level_db(energy: float, num_samples: int) -> float:
    return 10 * math.log10(max(energy / max(num_samples, 1), 1e-12))


def _limit_memory() -> None:
    try:  # other systems than Linux have no such limit, or do not tell what is in use
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            in_use = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (in_use + CHILD_BYTES, hard))
    except (ImportError, OSError, ValueError):
        pass


def _limit_processor_time(seconds: float) -> None:
    try:
        import resource

        until = math.ceil(time.process_time() + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    except (ImportError, OSError, ValueError):
        pass
