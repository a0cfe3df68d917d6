"""Hostile requests to `melody serve` are refused before a model runs; a flood leaves it as it was."""

import http.client
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import soundfile
from starlette.testclient import TestClient

from melody_diffusers.serving.app import create_app
from melody_diffusers.serving.queue import Limits

GENERATE, EDITS, RENDER = "/v1/audio/generate", "/v1/audio/edits", "/v1/audio/plan/render"
STREAMS, READ = "/v1/audio/streams", "/v1/audio/plan/read"
JSON = {"Content-Type": "application/json"}
FORM = "multipart/form-data; boundary=x"


def piece(**changes) -> dict:
    return {"json": {"input": "a waltz"} | changes}


def text(content: str | bytes, **headers: str) -> dict:
    return {"content": content, "headers": JSON | headers}


def sound(seconds: float = 1.0, rate: int = 24000, channels: int = 1, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full((int(seconds * rate), channels), 0.1, np.float32), rate, format=kind)
    return file.getvalue()


def edit(audio: bytes | None = None, **fields) -> dict:
    return {"data": {"edit": "vary"} | fields, "files": {"audio": ("song.wav", sound() if audio is None else audio)}}


def half_a_file() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).uniform(-0.5, 0.5, 48000), 24000, format="FLAC")
    return file.getvalue()[:40_000]


def not_finite() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full(24000, np.nan, np.float32), 24000, format="WAV", subtype="FLOAT")
    return file.getvalue()


def plan(**changes) -> dict:
    tokens = [1] * 50
    return {
        "json": {"plan": {"format": "melody plan 1", "tokens": tokens, "seconds": 2, "codebook_size": 32} | changes}
    }


# name, address, what is sent, the status
HOSTILE = [
    ("no body", GENERATE, {}, 422),
    ("no JSON", GENERATE, text("{"), 422),
    ("a list", GENERATE, text("[]"), 422),
    ("deep brackets", GENERATE, text("[" * 100_000), 400),
    ("a number of 5000 digits", GENERATE, text('{"input": "a", "seed": ' + "9" * 5000 + "}"), 400),
    ("an empty prompt", GENERATE, piece(input=""), 422),
    ("a blank prompt", GENERATE, piece(input=" \n"), 422),
    ("a prompt of a million characters", GENERATE, piece(input="a" * 1_000_000), 422),
    ("a prompt that is no text", GENERATE, piece(input={"a": 1}), 422),
    ("a lone surrogate", GENERATE, text('{"input": "\\ud800"}'), 422),
    ("bytes that are no UTF-8", GENERATE, text(b'{"input": "\xff\xfe"}'), 400),
    ("50 MB of JSON", GENERATE, text(b'{"input": "' + b"a" * 50_000_000 + b'"}'), 413),
    ("true as seconds", GENERATE, piece(audio_length=True), 422),
    ("NaN seconds", GENERATE, text('{"input": "a", "audio_length": NaN}'), 422),
    ("infinite seconds", GENERATE, text('{"input": "a", "audio_length": 1e999}'), 422),
    ("no seconds", GENERATE, piece(audio_length=0), 422),
    ("ten hours", GENERATE, piece(audio_length=36000), 422),
    ("seconds as text", GENERATE, piece(audio_length="5"), 422),
    ("two million steps", GENERATE, piece(num_inference_steps=2_000_000), 422),
    ("half a step", GENERATE, piece(num_inference_steps=0.5), 422),
    ("NaN guidance", GENERATE, text('{"input": "a", "guidance_scale": NaN}'), 422),
    ("a seed below 0", GENERATE, piece(seed=-1), 422),
    ("a kind of file that is none", GENERATE, piece(response_format="exe"), 422),
    ("an endless loop", GENERATE, piece(stream=True, loop=True), 422),
    ("a loop of an hour", GENERATE, piece(loop=True, bars=1000, bpm=20), 422),
    ("an argument that is none", GENERATE, piece(callback="os.system"), 422),
    ("an address as a recording", EDITS, {"data": {"edit": "vary", "audio": "http://169.254.169.254/"}}, 422),
    ("a path as a recording", EDITS, {"data": {"edit": "vary", "audio": "file:///etc/passwd"}}, 422),
    (
        "a file name with dots",
        EDITS,
        {"data": {"edit": "vary"}, "files": {"audio": ("../../etc/passwd", b"root:x")}},
        422,
    ),
    ("no sound", EDITS, edit(os.urandom(1000)), 422),
    ("half a file", EDITS, edit(half_a_file()), 422),
    ("samples that are not finite", EDITS, edit(not_finite()), 422),
    ("ten minutes in a small file", EDITS, edit(sound(600, 8000, kind="FLAC")), 422),
    ("a region past the end", EDITS, edit(edit="inpaint", start=0.5, end=9), 422),
    ("a region from NaN on", EDITS, edit(edit="inpaint", start="nan", end=1), 422),
    ("30 MB of upload", EDITS, edit(b"\0" * 30_000_000), 413),
    ("900 files", EDITS, {"files": [("audio", (str(i), b"x")) for i in range(900)], "data": {"edit": "vary"}}, 422),
    ("a broken form", EDITS, {"content": b"--x\r\nno form", "headers": {"Content-Type": FORM}}, 400),
    ("a plan that is none", RENDER, {"json": {"plan": {"__class__": "os.system"}}}, 422),
    ("a plan of other tokens", RENDER, plan(tokens=[31, -1]), 422),
    ("a plan of another model", RENDER, plan(codebook_size=1024), 422),
    ("a plan of an hour", RENDER, plan(tokens=[1] * 90_000, seconds=3600), 422),
    ("a plan from a picture", READ, {"files": {"audio": ("a.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 100)}}, 422),
    ("another's stream", f"{STREAMS}/..%2f..%2fsecret", {"json": {"input": "a"}}, 404),
    ("a foreign page", GENERATE, piece() | {"headers": {"Origin": "https://evil.example"}}, 403),
    ("a foreign name", GENERATE, piece() | {"headers": {"Host": "evil.example"}}, 403),
    ("a length that is none", GENERATE, text(b"{}", **{"Content-Length": "-5"}), 400),
    ("another method", "GET " + GENERATE, {}, 405),
    ("a file outside the page", "GET /..%2f..%2fapp.py", {}, 404),
    ("a file of the server", "GET /%2e%2e/app.py", {}, 404),
]


@pytest.fixture(scope="module")
def app(tiny_pipeline):
    return create_app(tiny_pipeline)


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app, "http://127.0.0.1:8024") as client:
        yield client


@pytest.mark.parametrize("address, sent, status", [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_a_hostile_request_is_refused_before_a_model_runs(client, app, address, sent, status):
    before = dict(app.state.queue.batches)
    method, _, path = address.rpartition(" ")
    answer = client.request(method or "POST", path, **sent)
    assert answer.status_code == status, answer.text[:500]
    said = answer.json()
    assert set(said) == {"code", "argument", "message"} and said["message"].strip() and len(answer.content) < 1000
    for secret in ("Traceback", 'File "', ".py", "site-packages", os.getcwd(), "object at 0x", "pydantic"):
        assert secret not in answer.text
    assert app.state.queue.batches == before and app.state.queue.places == 0


def test_a_body_that_does_not_come_is_not_waited_for(tiny_pipeline, monkeypatch):
    from live_server import live_server

    from melody_diffusers.serving import guard

    monkeypatch.setattr(guard, "BODY_SECONDS", 0.5)
    app = create_app(tiny_pipeline)
    with live_server(app) as server:
        with socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2])), timeout=20) as link:
            head = f"POST {GENERATE} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n"
            link.sendall(head.encode() + b'{"input"')
            assert link.recv(4096).startswith(b"HTTP/1.1 408")
        with socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2])), timeout=20) as link:
            link.sendall(head.encode() + b'{"input"')
            while app.state.queue.places == 0:
                time.sleep(0.01)
        while app.state.queue.places:  # who leaves in between is forgotten
            time.sleep(0.01)


SERVER = """
import sys, torch
from tiny import make_tiny_components
from live_server import live_server
from melody_diffusers import MeLoDyPipeline
from melody_diffusers.serving.app import create_app
torch.set_num_threads(1)
with live_server(create_app(MeLoDyPipeline(**make_tiny_components()))) as server:
    print(server, flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_flood_is_turned_away_within_bounded_memory_and_leaves_no_trace(tmp_path):
    tests = os.path.dirname(os.path.dirname(__file__))
    paths = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "TMPDIR": str(tmp_path), "MALLOC_ARENA_MAX": "2"}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        place = process.stdout.readline().strip().removeprefix("http://")

        def ask(number: int = 0) -> tuple[int, str | None]:
            link = http.client.HTTPConnection(place, timeout=120)
            body = {"input": "a waltz", "audio_length": 4.0, "num_inference_steps": 4, "seed": number}
            link.request("POST", GENERATE, json.dumps(body), JSON)
            answer = link.getresponse()
            answer.read()
            link.close()
            return answer.status, answer.getheader("retry-after")

        def flood() -> list[tuple[int, str | None]]:
            found: list[tuple[int, str | None]] = []
            threads = [threading.Thread(target=lambda i=i: found.append(ask(i))) for i in range(200)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
            return found

        def waiting() -> int:
            link = http.client.HTTPConnection(place, timeout=60)
            link.request("GET", "/health")
            found = json.loads(link.getresponse().read())
            link.close()
            return found["waiting"] + found["running"]

        flood()  # what a first one allocates stays
        memory = psutil.Process(process.pid).memory_info
        before = memory().rss
        found = flood()
        assert len(found) == 200 and {status for status, _ in found} == {200, 429}
        assert all(after is not None and 1 <= int(after) <= 60 for status, after in found if status == 429)
        assert sum(status == 200 for status, _ in found) >= 16
        started = time.monotonic()
        while waiting():
            time.sleep(0.05)
        assert ask()[0] == 200
        taken = time.monotonic() - started
        print(f"accepted {sum(status == 200 for status, _ in found)}; {memory().rss - before:+} bytes; {taken:.2f} s")
        assert taken < 2
        assert abs(memory().rss - before) < 32 << 20
        assert not list(tmp_path.iterdir())
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def test_the_limits_are_those_that_the_docs_name():
    limits = Limits()
    assert (limits.max_waiting, limits.max_batch, limits.max_playing) == (16, 8, 4)
    assert (limits.max_body_bytes, limits.max_upload_bytes, limits.max_seconds) == (1 << 20, 20 << 20, 300)
