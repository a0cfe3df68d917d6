import numpy as np
import pytest
import soundfile

from melody_diffusers.data.recordings import read_recordings


def write_tone(path, seconds: float, sample_rate: int, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * sample_rate)) / sample_rate)
    soundfile.write(path, np.stack([tone] * channels, axis=1), sample_rate)


def test_every_format_rate_and_number_of_channels_becomes_mono_clips(tmp_path):
    write_tone(tmp_path / "a.wav", 2.5, 44100, channels=2)
    write_tone(tmp_path / "b.flac", 1.0, 24000)
    write_tone(tmp_path / "more" / "c.mp3", 1.5, 32000)
    write_tone(tmp_path / "more" / "D.OGG", 1.2, 48000, channels=2)
    write_tone(tmp_path / "short.wav", 0.4, 24000)
    (tmp_path / "b.txt").write_text("a calm tone\n")
    (tmp_path / "._a.wav").write_bytes(b"what a file system noted")
    (tmp_path / "notes.md").write_text("not audio")
    clips = read_recordings(tmp_path, sample_rate=24000, max_seconds=1.0, min_seconds=0.5)
    assert [caption for _, caption in clips] == ["", "", "", "a calm tone", "", "", ""]
    lengths = [clip.shape[-1] for clip, _ in clips]  # a.wav, b.flac, more/D.OGG, more/c.mp3
    assert lengths[:5] == [24000, 24000, 12000, 24000, 24000] and len(lengths) == 7
    for clip, _ in clips:
        spectrum = np.abs(np.fft.rfft(clip[0].numpy()))
        assert clip.shape[0] == 1 and abs(spectrum.argmax() * 24000 / clip.shape[-1] - 440) < 2


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_recordings(tmp_path / "nowhere", 24000, 30, 10)
    write_tone(tmp_path / "short.wav", 0.4, 24000)
    with pytest.raises(ValueError, match="no recording of 10 s or more: found 1 files"):
        read_recordings(tmp_path, 24000, 30, 10)
    for name in ("broken.flac", "bought.m4a"):
        (tmp_path / name).write_bytes(b"fLaC")
        with pytest.raises(ValueError, match=name):
            read_recordings(tmp_path, 24000, 30, 10)
        (tmp_path / name).unlink()
