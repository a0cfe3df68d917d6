"""A stranger's afternoon, by the commands of the documentation alone.

A messy folder of recordings becomes an adapter and a model, both are pushed, songs are added, and it is trained again.
Every line that was printed is read at the end.
"""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hub_server import HubServer

pytest.importorskip("peft")
av = pytest.importorskip("av")
ROOT = Path(__file__).parents[2]
RATE = 44100


def song(seed: int, seconds: float = 24.0) -> np.ndarray:
    """Stereo, (T, 2): notes over a beat."""
    random = np.random.default_rng(seed)
    notes = np.repeat(random.uniform(110, 880, round(seconds * 3) + 1), RATE // 3)[: round(seconds * RATE)]
    mono = 0.3 * np.sin(2 * np.pi * np.cumsum(notes) / RATE) * np.exp(-4 * (np.arange(len(notes)) % (RATE // 3)) / RATE)
    return np.stack([mono, np.roll(mono, 300)], 1) + 0.01 * random.standard_normal((len(notes), 2))


def m4a(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=RATE)
        stream.layout = "stereo"
        planes = np.ascontiguousarray(samples.T.astype(np.float32))
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="stereo")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    return buffer.getvalue()


def messy_folder(folder: Path) -> None:
    """Twelve recordings in six formats; four of them bad, five described, in four ways."""
    (folder / "live takes").mkdir(parents=True)
    soundfile.write(folder / "Ärger im Studio.wav", song(0), RATE, subtype="PCM_24")
    soundfile.write(folder / "02 - rain.flac", song(1), RATE)
    soundfile.write(folder / "live takes" / "walk.mp3", song(2, 50.0), RATE)
    soundfile.write(folder / "live takes" / "walk home.ogg", song(3), RATE)
    (folder / "phone.m4a").write_bytes(m4a(song(4)))
    soundfile.write(folder / "loop.aiff", song(5, 4.0), RATE)
    soundfile.write(folder / "quiet.wav", 0.3 * song(6)[:, 0], RATE)
    soundfile.write(folder / "again.flac", song(7), RATE)
    (folder / "download.mp3").write_bytes((folder / "live takes" / "walk.mp3").read_bytes()[:150_000])
    (folder / "page.wav").write_bytes(b"<html>404 not found</html>")
    (folder / "empty.mp3").write_bytes(b"")
    soundfile.write(folder / "click.wav", song(8, 0.5), RATE)
    (folder / "02 - rain.txt").write_bytes("rain on a tin roof, slow\n".encode("utf-16"))
    (folder / "phone_prompt.txt").write_text("a phone recording of a synth")
    (folder / "phone_lyrics.txt").write_text("[verse]\nnot a caption")
    (folder / "quiet.json").write_text('{"description": "a quiet tune", "bpm": 90, "keyscale": "A minor"}')
    rows = [
        "file_name,prompt,genre",
        "live takes/walk.mp3,walking bass,(8)Jazz",
        "gone.wav,a song that was deleted,Pop",
    ]
    (folder / "metadata.csv").write_text("\n".join(rows))
    (folder / "cover.jpg").write_bytes(b"")
    (folder / ".DS_Store").write_bytes(b"")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_strangers_afternoon(tiny_folder, tmp_path):
    songs, log = tmp_path / "my songs", tmp_path / "log.txt"
    messy_folder(songs)
    (tmp_path / "prompts.yaml").write_text("[a slow waltz, happy techno]")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}

    def melody(*words: object, code: int = 0) -> str:
        return run(sys.executable, "-m", "melody_diffusers", *words, code=code)

    def run(*words: object, code: int = 0) -> str:
        with open(log, "ab") as file:
            file.write(f"$ {' '.join(map(str, words))}\n".encode())
            file.flush()
            start = file.tell()
            done = subprocess.run(list(map(str, words)), cwd=tmp_path, env=environment, stdout=file, stderr=file)
        printed = log.read_bytes()[start:].decode()
        assert done.returncode == code, printed[-3000:]
        return printed

    steps = ["run.budget_minutes=null", "run.batch_size=2", "run.checkpoint_every=2", f"data.model={tiny_folder}"]
    train = ["lora", "train", songs, "--output", "my lora", "--set", *steps, "data.prompts=prompts.yaml"]

    said = melody(*train, "run.max_steps=2")
    assert "used 8 of 12 files" in said and "refused 4" in said and "too_short (click.wav" in said
    assert "1 of 2 rows name no file here" in said and "gone.wav" in said
    assert (tmp_path / "my lora" / "pytorch_lora_weights.safetensors").is_file()
    said = melody(*train, "run.max_steps=2")  # once more, by mistake
    assert "already" in said

    play = ["generate", "a quiet tune", "--model", tiny_folder, "--steps", 2, "--seed", 1]
    melody(*play, "--duration", "0:02", "--lora", "my lora:0.8", "-o", "first try.mp3")
    assert "was not made by melody" in melody(*play, "-o", songs / "quiet.wav", code=2)

    said = melody("data", "build", songs, "--out", "my set")
    assert "refused 4 of 12 recordings: 1 not_audio, 1 corrupt, " in said or "refused 4 of 12 recordings" in said
    assert "1 recordings are shorter than a clip has to be: loops" in said
    recipe = [sys.executable, ROOT / "training" / "recipe.py", "--data", "my set", "--stages", "stages"]
    recipe += ["--until", "pipeline", "--model", "my model"]
    quick = ["--set", "run.max_steps=2", "run.budget_minutes=null", "run.batch_size=2"]
    said = run(*recipe, *quick)
    assert said.splitlines()[-1] == "pipeline: done"
    assert "nothing to be done" in run(*recipe, *quick)
    melody("generate", "a quiet tune", "--model", "my model", "--steps", 1, "--duration", 1, "-o", "second try.ogg")

    with HubServer({"hf_alice": "alice"}) as hub:
        hub.run(
            "from melody_diffusers import MeLoDyPipeline\n"
            f"pipe = MeLoDyPipeline.from_pretrained({str(tmp_path / 'my model')!r})\n"
            "pipe.push_to_hub('alice/my-model', token='hf_alice')\n"
            f"pipe = MeLoDyPipeline.from_pretrained({tiny_folder!r})\n"
            f"pipe.load_lora_weights({str(tmp_path / 'my lora')!r})\n"
            "pipe.save_lora_weights('share', push_to_hub=True, repo_id='alice/my-lora', token='hf_alice')\n"
            "MeLoDyPipeline.from_pretrained('alice/my-model')\n"
            f"MeLoDyPipeline.from_pretrained({tiny_folder!r}).load_lora_weights('alice/my-lora')",
            cache=tmp_path / "cache",
        )
        assert {"alice/my-model", "alice/my-lora"} <= set(hub.repositories)

    soundfile.write(songs / "new one.flac", song(20), RATE)
    shutil.copy(songs / "02 - rain.flac", songs / "rain (copy).flac")
    said = melody(*train, "run.max_steps=2")
    assert "1 recording" in said and "new" in said and "duplicate" in said
    assert "holds a data set already" in melody("data", "build", songs, "--out", "my set", code=2)
    melody("data", "build", songs, "--out", "my set", "--replace")
    stale = run(*recipe, *quick, "--list")
    for stage in ("vae_gan", "mulan", "semantic_encoder", "encoded"):
        assert re.search(rf"# {stage}: again, because data changed", stale), stale

    lines = log.read_text(errors="replace").splitlines()
    assert not [line for line in lines if re.search(r"Traceback|^\w*Error:|torchao|Exception ignored", line)]
