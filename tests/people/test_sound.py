"""Sound as people hold it, and the files that they have: each is taken for what it holds, or refused by name."""

import io
import struct

import numpy as np
import pytest
import soundfile
import torch

from melody_diffusers.audio import AudioError, load_audio, save_audio, save_patched, to_waveform
from melody_diffusers.data.decoding import DecodeLimits, Decoder
from melody_diffusers.sound_files import NeedsPyAV, open_sound

RATE = 24000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)
INT16 = np.round(TONE * 32767).astype(np.int16)
FORMS = {
    "an array": TONE,
    "a tensor": torch.from_numpy(TONE),
    "a tensor that requires gradients": torch.from_numpy(TONE.copy()).requires_grad_(),
    "a list": TONE.tolist(),
    "double precision": TONE.astype(np.float64),
    "channels first": TONE[None],
    "what a pipeline returns": TONE[None, None],
    "int16": INT16,
    "int16 tensor": torch.from_numpy(INT16),
    "int32": INT16.astype(np.int32) << 16,
    "a pair of gradio's": (RATE, INT16),
    "a stereo pair of gradio's, channels last": (RATE, np.stack([INT16, INT16], 1)),
    "what soundfile.read returns": (np.stack([TONE, TONE], 1).astype(np.float64), RATE),
    "a row of a data set": {"array": TONE, "sampling_rate": RATE, "path": "tone.wav"},
    "what transformers' pipelines return": {"audio": TONE[None], "sampling_rate": RATE},
    "ComfyUI's audio": {"waveform": torch.from_numpy(TONE)[None, None], "sample_rate": RATE},
}


@pytest.mark.parametrize("form", FORMS)
def test_sound_in_any_form_is_written_as_it_sounds(form, tmp_path):
    save_audio(tmp_path / "tone.wav", FORMS[form], RATE)
    samples, rate = soundfile.read(tmp_path / "tone.wav", always_2d=True)
    assert rate == RATE and np.abs(samples[:, 0] - TONE).max() < 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_sound_in_any_form_is_read(form):
    waveform = load_audio(FORMS[form], RATE, source_rate=RATE)
    assert waveform.shape == (1, RATE) and np.abs(waveform[0].detach().numpy() - TONE).max() < 1e-4


def test_a_torchcodec_decoder_is_read():
    class Decoder:
        def get_all_samples(self):
            return type("Samples", (), {"data": torch.from_numpy(TONE)[None], "sample_rate": RATE})

    assert torch.equal(load_audio(Decoder(), RATE)[0], torch.from_numpy(TONE))


def test_the_rate_that_comes_with_an_array_is_the_files_rate(tmp_path):
    save_audio(tmp_path / "a.wav", (44100, INT16))
    assert soundfile.info(tmp_path / "a.wav").samplerate == 44100
    assert load_audio({"array": TONE, "sampling_rate": 12000}, RATE).shape == (1, 2 * RATE)


def test_16_bit_samples_come_back_bit_for_bit(tmp_path):
    every = np.arange(-32768, 32768).astype(np.int16)
    save_audio(tmp_path / "a.wav", every, RATE)
    assert np.array_equal(soundfile.read(tmp_path / "a.wav", dtype="int16")[0], every)


UNKNOWABLE = {
    "channels last": (np.stack([TONE, TONE], 1), "Did you mean `.T`"),
    "int16 values as floats": (INT16.astype(np.float32), "Did you mean `/ 32768`"),
    "whole numbers of no known scale": (INT16.astype(np.int64), "Its scale cannot be known"),
    "a batch": (np.stack([TONE, TONE])[:, None], r"Did you mean one of these 2, `\[0\]`"),
    "ragged lists": ([[0.1, 0.2], [0.3]], "lists of different lengths"),
    "complex": (TONE.astype(np.complex64), "complex64"),
    "nothing": (np.zeros(0, np.float32), r"\(0,\)"),
    "a number": (3.0, "be a path, a file, an array or a tensor; got 3.0"),
    "a dict of something else": ({"text": "a waltz"}, "a dict of text"),
    "NaN": (np.full(5, np.nan), "NaN"),
}


@pytest.mark.parametrize("case", UNKNOWABLE)
def test_what_cannot_be_known_is_refused_with_the_likely_mend(case, tmp_path):
    sound, said = UNKNOWABLE[case]
    with pytest.raises(AudioError, match=said):
        to_waveform(sound)
    with pytest.raises(ValueError, match=said):
        save_audio(tmp_path / "a.wav", sound, RATE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3"])
def test_every_format_that_is_written_is_read_again(suffix, tmp_path):
    save_audio(tmp_path / f"a{suffix}", TONE, RATE, comment="seed 7: a tone")
    again = load_audio(tmp_path / f"a{suffix}", RATE)[0].numpy()
    spectrum = np.abs(np.fft.rfft(again[:RATE]))
    assert abs(len(again) - RATE) < 1500 and int(spectrum.argmax()) == 440
    assert 10 * np.log10(np.square(again[:RATE]).mean() / np.square(TONE).mean()) == pytest.approx(0, abs=0.5)
    assert soundfile.SoundFile(tmp_path / f"a{suffix}").comment == "melody-diffusers seed 7: a tone"


def test_an_hour_is_written_as_ogg(tmp_path):
    save_audio(tmp_path / "long.ogg", np.tile(TONE, 120), RATE)  # at once, Vorbis would overflow its stack
    assert soundfile.info(tmp_path / "long.ogg").frames == 120 * RATE


def test_sound_goes_to_and_comes_from_memory():
    memory = io.BytesIO()
    save_audio(memory, TONE, RATE, format="flac")
    assert load_audio(memory.getvalue(), RATE).shape == load_audio(memory, RATE).shape == (1, RATE)
    assert load_audio({"bytes": memory.getvalue(), "path": "x.flac"}, RATE).shape == (1, RATE)


# --- odd files -------------------------------------------------------------------------------------------------------

MUSIC = (0.3 * np.sin(np.cumsum(np.random.default_rng(0).uniform(0.01, 0.2, (3 * 44100, 1)), 0))).astype(np.float32)
OTHER = (0.3 * np.sin(np.cumsum(np.random.default_rng(1).uniform(0.01, 0.2, (2 * 44100, 1)), 0))).astype(np.float32)


def encoded(samples, rate=44100, format="WAV", subtype="PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def wav(tag=b"RIFF", size=None, data_size=None, before=b"") -> bytes:
    """MUSIC as a WAV file whose header says what is asked for."""
    pcm = np.round(MUSIC * 32768).astype("<i2").tobytes()
    format = struct.pack("<IHHIIHH", 16, 1, 1, 44100, 2 * 44100, 2, 16)
    data_size = len(pcm) if data_size is None else data_size
    body = b"WAVE" + before + b"fmt " + format + b"data" + struct.pack("<I", data_size) + pcm
    return tag + struct.pack("<I", len(body) if size is None else size) + body


def without_length(flac: bytes) -> bytes:
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


UNTIL_THE_END = 0xFFFFFFFF
DS64 = b"ds64" + struct.pack("<IQQQI", 28, 2 * len(MUSIC) + 100, 2 * len(MUSIC), len(MUSIC), 0)
FLAC, MP3 = encoded(MUSIC, format="FLAC"), encoded(MUSIC, format="MP3", subtype=None)
ODD = {
    "RF64": (wav(b"RF64", UNTIL_THE_END, UNTIL_THE_END, DS64), 3.0),
    "BW64": (wav(b"BW64", UNTIL_THE_END, UNTIL_THE_END, DS64), 3.0),
    "from a pipe": (wav(size=UNTIL_THE_END, data_size=UNTIL_THE_END), 3.0),
    "never finished": (wav(size=0, data_size=0), 3.0),
    "odd chunk without its padding": (wav(before=b"LIST" + struct.pack("<I", 5) + b"INFOx"), 3.0),
    "odd chunk with its padding": (wav(before=b"LIST" + struct.pack("<I", 5) + b"INFOx\0"), 3.0),
    "24 bits": (encoded(MUSIC, subtype="PCM_24"), 3.0),
    "extensible": (encoded(MUSIC, format="WAVEX"), 3.0),
    "float above full scale": (encoded(2.5 * MUSIC / MUSIC.max(), subtype="FLOAT"), 3.0),
    "FLAC from a pipe": (without_length(FLAC), 3.0),
    "MP3 a frame short": (MP3[:-300], 3.0),
    "joined MP3s": (MP3 + encoded(OTHER, format="MP3", subtype=None), 5.0),
    "MP3 with a tag at its end": (MP3 + b"TAG" + bytes(125), 3.0),
    "chained Ogg": (encoded(MUSIC, 44100, "OGG", "VORBIS") + encoded(OTHER, 44100, "OGG", "VORBIS"), 5.0),
    "chained Opus": (encoded(MUSIC, 48000, "OGG", "OPUS") + encoded(OTHER, 48000, "OGG", "OPUS"), 5 * 44100 / 48000),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_is_read_for_what_it_holds(kind, tmp_path):
    content, seconds = ODD[kind]
    (tmp_path / "odd").write_bytes(content)
    for source in (tmp_path / "odd", content):
        assert load_audio(source, RATE).shape[1] / RATE == pytest.approx(seconds, abs=0.06)
    with Decoder(DecodeLimits(min_seconds=1.0)) as decoder:  # as `melody data build` reads it
        found = decoder.decode(str(tmp_path / "odd"), str(tmp_path / "clips"))
    assert found["reason"] is None and found["seconds"] == pytest.approx(seconds, abs=0.06)


@pytest.mark.parametrize("kind", ["BW64", "never finished", "odd chunk without its padding", "from a pipe"])
def test_a_wav_with_an_odd_header_gives_the_samples_of_a_plain_one(kind):
    def samples(content):
        with open_sound(content) as file:
            return np.concatenate(list(file.blocks(1000)))

    assert np.array_equal(samples(ODD[kind][0]), samples(wav()))


def test_the_second_of_two_joined_files_is_heard():
    with open_sound(ODD["joined MP3s"][0]) as file:
        samples = np.concatenate(list(file.blocks(5000)))
    assert np.corrcoef(samples[-len(OTHER) :, 0], OTHER[:, 0])[0, 1] > 0.95


def test_joined_streams_of_different_rates_are_refused():
    both = encoded(MUSIC, 44100, "OGG", "VORBIS") + encoded(OTHER, 48000, "OGG", "VORBIS")
    with pytest.raises(ValueError, match="different rates or channels are joined"):
        load_audio(both)


def m4a(seconds=2.0) -> bytes:
    av = pytest.importorskip("av")
    buffer, tone = io.BytesIO(), np.tile(np.sin(2 * np.pi * 440 * np.arange(44100) / 44100), 3)[: int(seconds * 44100)]
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=44100)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(0.5 * tone[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    return buffer.getvalue()


def test_m4a_is_decoded_where_pyav_is_installed(tmp_path):
    (tmp_path / "song.m4a").write_bytes(m4a())
    waveform = load_audio(tmp_path / "song.m4a", RATE)
    assert waveform.shape[1] / RATE == pytest.approx(2.0, abs=0.1)
    assert int(np.abs(np.fft.rfft(waveform[0, 6000 : 6000 + RATE].numpy())).argmax()) == 440
    with Decoder(DecodeLimits(min_seconds=1.0)) as decoder:
        assert decoder.decode(str(tmp_path / "song.m4a"), str(tmp_path / "clips"))["reason"] is None


def test_m4a_says_what_to_install_or_run_where_pyav_is_not(tmp_path, monkeypatch):
    (tmp_path / "song.m4a").write_bytes(m4a())
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(NeedsPyAV):
        with open_sound(tmp_path / "song.m4a"):
            pass
    with pytest.raises(ValueError, match=r"song\.m4a.*melody-diffusers\[formats\].*ffmpeg -i SONG song\.flac"):
        load_audio(tmp_path / "song.m4a")


def test_two_hours_are_refused_by_their_header_before_they_are_decoded(tmp_path):
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 44100, 2, "PCM_16") as file:
        for _ in range(120):
            file.write(np.zeros((60 * 44100, 2), np.int16))
    import time
    import tracemalloc

    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ValueError, match="it lasts 7200.0 s; at most 3600 s"):
        load_audio(tmp_path / "long.flac", max_seconds=3600)
    assert tracemalloc.get_traced_memory()[1] < 1e7 and time.process_time() - started < 1
    tracemalloc.stop()


# --- patches ---------------------------------------------------------------------------------------------------------

COPIES = [  # format and encoding of a file, its channels and rate, and what is written: suffix, format and encoding
    ("WAV", "PCM_16", 2, 44100, ".wav", "WAV PCM_16"),
    ("WAV", "PCM_U8", 1, 11025, ".wav", "WAV PCM_U8"),
    ("WAVEX", "PCM_24", 3, 96000, ".wav", "WAVEX PCM_24"),
    ("WAV", "PCM_32", 1, 48000, ".wav", "WAV PCM_32"),
    ("WAV", "FLOAT", 1, 24000, ".wav", "WAV FLOAT"),
    ("WAV", "DOUBLE", 2, 44100, ".wav", "WAV DOUBLE"),
    ("AIFF", "PCM_16", 2, 44100, ".wav", "WAV PCM_16"),
    ("FLAC", "PCM_24", 2, 48000, ".flac", "FLAC PCM_24"),
    ("FLAC", "PCM_16", 2, 44100, ".wav", "WAV PCM_16"),
    ("WAV", "PCM_24", 1, 44100, ".flac", "FLAC PCM_24"),
    ("WAV", "PCM_U8", 1, 44100, ".flac", "FLAC PCM_16"),
]


@pytest.mark.parametrize(("format", "subtype", "channels", "rate", "suffix", "kind"), COPIES)
def test_a_patched_copy_is_the_file_bit_for_bit_elsewhere(format, subtype, channels, rate, suffix, kind, tmp_path):
    noise = np.random.default_rng(0).uniform(-1, 1, (300_000, channels))  # more than a block
    (tmp_path / "in").write_bytes(encoded(noise, rate, format, subtype))
    before = soundfile.read(tmp_path / "in", always_2d=True)[0]
    patch = torch.full((channels, 1000), 0.25)
    patches = [(262_000, patch), (-1000, patch), (299_500, patch), (1000, 8 * patch)]
    assert save_patched(tmp_path / f"out{suffix}", tmp_path / "in", patches, comment="seed 1") == 301_500
    after, its_rate = soundfile.read(tmp_path / f"out{suffix}", always_2d=True)
    with soundfile.SoundFile(tmp_path / f"out{suffix}") as file:
        assert f"{file.format} {file.subtype}" == kind and its_rate == rate and file.comment.endswith("seed 1")
    expected = np.concatenate([np.full((1000, channels), 0.25), before, np.full((500, channels), 0.25)])
    expected[263_000:264_000] = expected[300_500:301_000] = 0.25
    assert np.array_equal(after[[*range(2000), *range(3000, 301_500)]], expected[[*range(2000), *range(3000, 301_500)]])
    assert after[2000:3000].min() > 0.99  # a patch that is too loud is clipped and does not wrap


def test_a_float_file_becomes_a_flac_of_24_bits(tmp_path):
    (tmp_path / "in.wav").write_bytes(encoded(MUSIC, subtype="FLOAT"))
    save_patched(tmp_path / "out.flac", tmp_path / "in.wav", [])
    assert soundfile.info(tmp_path / "out.flac").subtype == "PCM_24"
    assert np.abs(soundfile.read(tmp_path / "out.flac")[0] - MUSIC[:, 0]).max() < 2**-23


@pytest.mark.parametrize("suffix", [".mp3", ".ogg"])
def test_a_lossy_file_is_patched_as_it_sounds(suffix, tmp_path):
    (tmp_path / "in").write_bytes(ODD["joined MP3s"][0])
    save_patched(tmp_path / f"out{suffix}", tmp_path / "in", [(44100, torch.zeros(1, 22050))])
    samples = load_audio(tmp_path / f"out{suffix}", 44100)[0].numpy()
    assert len(samples) / 44100 == pytest.approx(5.0, abs=0.1)
    assert np.abs(samples[50000:60000]).max() < 0.02 < np.abs(samples[30000:40000]).max()


def test_what_cannot_be_patched_leaves_nothing_behind(tmp_path):
    (tmp_path / "in.wav").write_bytes(encoded(MUSIC))
    with pytest.raises(ValueError, match=r"\.opus does not hold 44100 Hz and 1 channels; write \.wav or \.flac"):
        save_patched(tmp_path / "out.opus", tmp_path / "in.wav", [])
    with pytest.raises(ValueError, match="Audio is written as .wav"):
        save_patched(tmp_path / "out.m4a", tmp_path / "in.wav", [])
    for start, patch, said in (
        (0, torch.zeros(2, 10), r"must have 1 channels and reach the source; got \(2, 10\)"),
        (-11, torch.zeros(1, 10), "reach the source; got .* from sample -11 on"),
        (len(MUSIC) + 1, torch.zeros(1, 10), "reach the source of 132300 samples; got one from 132301 on"),
    ):
        with pytest.raises(ValueError, match=said):
            save_patched(tmp_path / "out.wav", tmp_path / "in.wav", [(start, patch)])
    (tmp_path / "in.flac").write_bytes(FLAC[: len(FLAC) // 2])
    with pytest.raises((ValueError, RuntimeError)):
        save_patched(tmp_path / "out.flac", tmp_path / "in.flac", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.flac", "in.wav"]
