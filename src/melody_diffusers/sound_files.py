"""Opens the sound files that people have, and reads them block by block; knows NumPy and soundfile, not PyTorch.

libsndfile reads WAV, FLAC, MP3, Ogg, Opus, AIFF and more. Where what it says is less than what the file holds, the file
is shown to it in parts, or with its header mended: Ogg streams one after the other, MP3 files that were joined, a
recording that was never finished, BW64. What it does not know at all (AAC, WMA, the sound of a video) is decoded by
PyAV, if that is installed.
"""

import contextlib
import io
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import soundfile

SOFTWARE = "melody-diffusers"  # in the notes of files that are written
FORMATS = {  # suffix -> libsndfile's names of container and encoding
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
UNKNOWN_LENGTH = 1 << 62  # and more is what the header of a FLAC says that was written to a pipe
EXACT_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC")
EXACT_ENCODINGS = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
HEADER_BYTES = 1 << 16
MP3_SPARE_SAMPLES = 4 * 1152  # which encoders announce and then leave out
MAX_COMMENT_BYTES = 1 << 20  # of a comment that is read
MAX_OPUS_COMMENT_BYTES = 50_000  # from 51,201 on libsndfile writes an Opus file that nothing opens
WAV_COMMENT_BYTES = (
    2000  # from 2,047 on libsndfile does not read what is in the header, from some 50,000 on it drops it
)
MAX_CHUNKS = 10_000
CHUNKS = (b"fmt ", b"data", b"fact", b"LIST", b"bext", b"smpl", b"cue ", b"inst", b"id3 ")  # of a WAV
NEEDS_PYAV = {  # where in a file, which bytes, of what
    "an MPEG-4 file, such as M4A": (4, b"ftyp"),
    "a WMA or WMV file": (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    "a WebM or Matroska file": (0, b"\x1a\x45\xdf\xa3"),
    "a Monkey's Audio file": (0, b"MAC "),
    "a WavPack file": (0, b"wvpk"),
    "a Flash video": (0, b"FLV\x01"),
}


class NeedsPyAV(ValueError):
    """The file is in a format that PyAV decodes, and PyAV is not installed."""


@dataclass(frozen=True)
class _Part:
    """A stretch of a file that is a file of its own: where it begins and ends, and what to read in its first bytes."""

    start: int
    end: int
    header: bytes = b""


class _PartOfFile(io.RawIOBase):
    """A `_Part` as a file."""

    def __init__(self, file: BinaryIO, part: _Part) -> None:
        self._file, self._part, self._position = file, part, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._part.end - self._part.start}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:  # as much as there is: libsndfile takes less for the end
        view, part = memoryview(buffer).cast("B"), self._part
        data = part.header[self._position : self._position + len(view)]
        place = self._position + len(data)
        self._file.seek(part.start + place)
        data += self._file.read(max(0, min(len(view) - len(data), part.end - part.start - place)))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


class SoundFile:
    """An open sound file.

    Attributes:
        rate: samples a second. channels: how many.
        frames: samples of each channel that its header promises; None where it does not say.
        format: container and encoding, such as "WAV PCM_16".
        genre: as its tags say, or "". comment: likewise.
        notes: what libsndfile noted about the header.
        spare: samples that may be missing at the end of a file that is whole.
        is_exact: `frames` is what the file holds, to the sample, and each of them can be found at once.
    """

    rate: int
    channels: int
    frames: int | None
    format: str
    genre: str = ""
    comment: str = ""
    notes: str = ""
    spare: int = 0
    is_exact: bool = False

    def blocks(self, num_samples: int, start: int = 0, dtype: str = "float32") -> Iterator[np.ndarray]:
        """The samples from `start` on in order, (T, C), in blocks of at most `num_samples` and never an empty one.

        Once for each time the file is opened, unless it `is_exact`. "float64" holds every sample exactly; "int32" those
        of an exact file of whole numbers, of which fewer bits fill the upper ones.
        """
        for block in self._all_blocks(num_samples, dtype):
            if start < len(block):
                yield block[start:]
            start = max(0, start - len(block))

    def _all_blocks(self, num_samples: int, dtype: str) -> Iterator[np.ndarray]:
        raise NotImplementedError


class _ByLibsndfile(SoundFile):
    def __init__(self, parts: list[soundfile.SoundFile]) -> None:
        first = parts[0]
        self.rate, self.channels, self._parts = first.samplerate, first.channels, parts
        if any((part.samplerate, part.channels) != (self.rate, self.channels) for part in parts):
            raise soundfile.SoundFileRuntimeError("several recordings of different rates or channels are joined in it")
        is_known = all(part.frames < UNKNOWN_LENGTH for part in parts)
        self.frames = sum(part.frames for part in parts) if is_known else None
        self.format = f"{first.format} {first.subtype}"
        tags = first.copy_metadata()
        self.genre, self.comment, self.notes = tags.get("genre", ""), tags.get("comment", ""), first.extra_info
        self.spare = MP3_SPARE_SAMPLES * len(parts) if first.format in ("MP3", "MPEG") else 0
        is_plain = first.format in EXACT_FORMATS and first.subtype in EXACT_ENCODINGS
        self.is_exact = is_plain and is_known and len(parts) == 1

    def blocks(self, num_samples: int, start: int = 0, dtype: str = "float32") -> Iterator[np.ndarray]:
        if not self.is_exact:
            return super().blocks(num_samples, start, dtype)
        place = min(start, self.frames or 0)
        if self._parts[0].tell() != place:  # a FLAC that is a header alone cannot be sought in
            self._parts[0].seek(place)
        return self._all_blocks(num_samples, dtype)

    def _all_blocks(self, num_samples: int, dtype: str) -> Iterator[np.ndarray]:
        for part in self._parts:
            part.seekable = lambda: False  # else soundfile seeks after each block, and an MP3 comes out wrong there
            while len(block := part.read(num_samples, dtype=dtype, always_2d=True)):
                yield block


class _ByPyAV(SoundFile):
    def __init__(self, container: Any) -> None:
        self._container, self._stream = container, container.streams.audio[0]
        self.rate, self.channels = self._stream.rate, self._stream.channels
        duration = self._stream.duration
        # what it says about time is not exact to the sample, so it serves as an estimate and not as a promise
        self.frames = None if duration is None else int(duration * self._stream.time_base * self.rate)
        self.format = f"{container.format.name} {self._stream.codec_context.name}"
        self.genre, self.comment = container.metadata.get("genre", ""), container.metadata.get("comment", "")
        self.spare = self.rate

    def _all_blocks(self, num_samples: int, dtype: str) -> Iterator[np.ndarray]:
        import av

        resampler = av.AudioResampler(format="fltp", layout=self._stream.layout, rate=self.rate)
        for frame in itertools.chain(self._container.decode(self._stream), [None]):  # None: what is left
            for plain in resampler.resample(frame):
                samples = np.ascontiguousarray(plain.to_ndarray().T, dtype)  # (T, C)
                yield from (samples[i : i + num_samples] for i in range(0, len(samples), num_samples))


def _opened_bytes(source: str | os.PathLike | bytes | BinaryIO, stack: contextlib.ExitStack) -> BinaryIO:
    """The source as a file that can be read anywhere, at its beginning; the stack closes what is opened here."""
    if isinstance(source, (str, os.PathLike)):
        return stack.enter_context(open(source, "rb"))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    file = source if source.seekable() else io.BytesIO(source.read())
    file.seek(0)
    return file


@contextlib.contextmanager
def open_sound(source: str | os.PathLike | bytes | BinaryIO) -> Iterator[SoundFile]:
    """A sound file by its path, its bytes, or open for reading.

    Raises:
        OSError: it cannot be opened.
        NeedsPyAV: the format is one that PyAV knows; says how to install it, or to convert the file.
        soundfile.SoundFileError: it is no sound file, or damaged. RuntimeError, TypeError, ValueError: likewise, where
            a file shows the decoder something it never expected.
    """
    with contextlib.ExitStack() as stack:
        file = _opened_bytes(source, stack)
        try:
            sound = _open_by_libsndfile(file, source, stack)
        except soundfile.LibsndfileError as error:
            sound = _open_by_pyav(file, stack, error)
        yield sound


def read_comment(source: str | os.PathLike | bytes | BinaryIO) -> str:
    """The comment in the tags of a sound file; "" where there is none, or one of more than `MAX_COMMENT_BYTES`.

    Raises:
        As `open_sound`.
    """
    with contextlib.ExitStack() as stack:
        file = _opened_bytes(source, stack)
        comment = _wav_comment(file)
        if comment is None:
            file.seek(0)
            with open_sound(source if isinstance(source, (str, os.PathLike)) else file) as sound:
                comment = sound.comment
    return comment if len(comment) <= MAX_COMMENT_BYTES else ""


def _wav_comment(file: BinaryIO) -> str | None:
    """The longest comment in the INFO lists of a WAV; None of any other file, or where there is none."""
    size, found = file.seek(0, os.SEEK_END), None
    file.seek(0)
    head, place = file.read(12), 12
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
        return None
    for _ in range(MAX_CHUNKS):
        file.seek(place)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        if place + 8 >= size:
            break
        place += 8 + length + length % 2
        if name != b"LIST" or length > MAX_COMMENT_BYTES or file.read(4) != b"INFO":
            continue
        tags, start = file.read(max(0, length - 4)), 0
        while start + 8 < len(tags):
            end = start + 8 + int.from_bytes(tags[start + 4 : start + 8], "little")
            if tags[start : start + 4] == b"ICMT":
                text = tags[start + 8 : end].rstrip(b"\0").decode("utf-8", "replace")
                found = text if len(text) > len(found or "") else found
            start = end + end % 2
    return found


def append_wav_comment(file: BinaryIO, comment: str) -> None:
    """Puts a comment of any length behind the sound of a WAV that is open for writing, in an INFO list of its own."""
    text = comment.encode() + b"\0"
    text = b"ICMT" + len(text).to_bytes(4, "little") + text + b"\0" * (len(text) % 2)
    file.seek(0, os.SEEK_END)
    file.write(b"LIST" + (4 + len(text)).to_bytes(4, "little") + b"INFO" + text)
    length = file.tell() - 8
    file.seek(4)
    file.write(min(length, 0xFFFFFFFF).to_bytes(4, "little"))
    file.seek(0, os.SEEK_END)


def _open_by_libsndfile(file: BinaryIO, source: Any, stack: contextlib.ExitStack) -> SoundFile:
    size = file.seek(0, os.SEEK_END)

    def opened(part: _Part) -> soundfile.SoundFile:
        if part != _Part(0, size):
            return stack.enter_context(soundfile.SoundFile(_PartOfFile(file, part)))
        file.seek(0)
        is_path = isinstance(source, (str, os.PathLike))  # as bytes: names need not be text
        path = os.fspath(source) if is_path and os.name == "nt" else os.fsencode(source) if is_path else file
        return stack.enter_context(soundfile.SoundFile(path))

    file.seek(0)
    head = file.read(HEADER_BYTES)
    if head[:4] == b"OggS":
        parts = _ogg_streams(file, size)
    elif head[:3] == b"ID3" or _is_mpeg_frame(head):
        parts = _joined_mp3s(file, size)
    else:
        parts = [_mended(head, size)]
    return _ByLibsndfile([opened(part) for part in parts])


def _mended(head: bytes, size: int) -> _Part:
    """The whole file, with a header that libsndfile understands where its own is not one."""
    if head[:4] == b"BW64":  # ITU-R BS.2088; an RF64 but for its name
        return _Part(0, size, b"RF64" + head[4:])
    header, place = bytearray(head[:12]), 12
    while head[:4] == b"RIFF" and head[8:12] == b"WAVE" and place + 8 <= len(head):
        length = int.from_bytes(head[place + 4 : place + 8], "little")
        if head[place : place + 4] == b"data":
            longer = len(header) - place
            if length == 0 and size > place + 8:  # a recording that was never finished
                length = min(size - place - 8, 0xFFFFFFFF)
            elif longer == 0:
                break
            header[4:8] = min(size + longer - 8, 0xFFFFFFFF).to_bytes(4, "little")
            header += b"data" + length.to_bytes(4, "little") + head[place + 8 :]
            return _Part(-longer, size, bytes(header))
        header += head[place : place + 8 + length]
        place += 8 + length
        if length % 2 and head[place : place + 4] in CHUNKS:  # some programs leave out the byte that makes it even
            header += b"\0"
        elif length % 2:
            header += head[place : place + 1]
            place += 1
    return _Part(0, size)


def _ogg_streams(file: BinaryIO, size: int) -> list[_Part]:
    """The streams that follow each other in an Ogg file: each starts with a page that says so."""
    starts, place, was_start = [], 0, False
    while place < size:
        file.seek(place)
        page = file.read(27 + 255)
        if page[:4] != b"OggS" or len(page) < 27:
            break
        is_start = bool(page[5] & 2)
        if is_start and not was_start:
            starts.append(place)
        was_start = is_start
        num_segments = page[26]
        place += 27 + num_segments + sum(page[27 : 27 + num_segments])
    return [_Part(start, end) for start, end in zip(starts, [*starts[1:], size])] or [_Part(0, size)]


def _joined_mp3s(file: BinaryIO, size: int) -> list[_Part]:
    """The files that were joined to one MP3, by the number of bytes that encoders leave in the first frame."""
    parts, start = [], 0
    while True:
        file.seek(start)
        frame = start + _id3_bytes(file.read(10))
        file.seek(frame)
        head = file.read(256)
        tag = re.search(rb"Xing|Info", head[:200])
        flags = int.from_bytes(head[tag.end() : tag.end() + 4], "big") if tag else 0
        length_at = tag.end() + (8 if flags & 1 else 4) if tag else 0
        end = frame + (int.from_bytes(head[length_at : length_at + 4], "big") if flags & 2 else size)
        file.seek(min(end, size))
        following = file.read(10)
        if end > frame and (following[:3] == b"ID3" or _is_mpeg_frame(following)):
            parts.append(_Part(start, end))
            start = end
        else:
            return [*parts, _Part(start, size)]


def _is_mpeg_frame(head: bytes) -> bool:
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0


def _id3_bytes(head: bytes) -> int:
    """The length of the tags that a file begins with."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))


def _open_by_pyav(file: BinaryIO, stack: contextlib.ExitStack, error: soundfile.LibsndfileError) -> SoundFile:
    file.seek(0)
    head = file.read(64)
    kinds = [kind for kind, (place, magic) in NEEDS_PYAV.items() if head[place : place + len(magic)] == magic]
    if head[:1] == b"\xff" and head[1:2] and head[1] & 0xF6 == 0xF0:
        kinds = ["an AAC file"]
    if not kinds:
        raise error
    try:
        import av
    except ImportError:
        raise NeedsPyAV(
            f"{kinds[0]} needs PyAV: pip install 'melody-diffusers[formats]'; or convert it: ffmpeg -i SONG song.flac"
        ) from None
    file.seek(0)
    try:
        container = stack.enter_context(av.open(file))
        if not container.streams.audio:
            raise ValueError(f"{kinds[0]} without sound")
        return _ByPyAV(container)
    except av.FFmpegError as failure:
        raise ValueError(f"{kinds[0]} that cannot be decoded: {failure}") from failure
