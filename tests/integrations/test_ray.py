"""The app on a Ray cluster of this machine: two replicas, of which one is killed while it works."""

import http.client
import importlib
import io
import json
import os
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
import soundfile
import torch
from starlette.testclient import TestClient
from tiny import make_attentive, make_quiet, make_tiny_components

from melody_diffusers import MeLoDyPipeline
from melody_diffusers.serving.app import create_app

ROOT = Path(__file__).parents[2]
TOKEN = "a-word-that-nobody-guesses"

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray, for Python 3.11 or newer")


@pytest.fixture(scope="module")
def pipe() -> MeLoDyPipeline:
    pipe = MeLoDyPipeline(**make_quiet(make_attentive(make_tiny_components())))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def melody_ray(monkeypatch):
    """The file as `serve run melody_ray:build` finds it, here and in the replicas."""
    folders = [str(ROOT / "src"), str(ROOT / "integrations" / "ray")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray keeps one in the home folder
    monkeypatch.syspath_prepend(folders[1])
    return importlib.import_module("melody_ray")


@contextmanager
def cluster(application) -> Iterator[int]:
    """The port of an application on a cluster of this machine, no process of which stays."""
    import ray
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        processes: list[psutil.Process] = []
        try:
            ray.init(
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=100 << 20,
                log_to_driver=False,
                _temp_dir=folder,
            )
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(application)
            yield port
        finally:
            processes = psutil.Process().children(recursive=True)
            serve.shutdown()
            ray.shutdown()
            _, alive = psutil.wait_procs([each for each in processes if is_of_ray(each)], timeout=20)
            for each in alive:
                each.kill()
        assert not alive, alive


def is_of_ray(process: psutil.Process) -> bool:
    try:
        return "ray" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def post(port: int, path: str, body: dict | None, method: str = "POST") -> http.client.HTTPResponse:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=200)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    link.request(method, path, None if body is None else json.dumps(body), headers)
    return link.getresponse()


def piece(port: int, body: dict) -> np.ndarray:
    answer = post(port, "/v1/audio/generate", body)
    content = answer.read()
    assert answer.status == 200, content
    return soundfile.read(io.BytesIO(content), dtype="float32")[0]


def alone(pipe: MeLoDyPipeline, body: dict) -> np.ndarray:
    """What the pipeline makes of a request."""
    return pipe(
        body["input"],
        audio_duration=body["audio_length"],
        num_inference_steps=body.get("num_inference_steps"),
        generator=torch.Generator().manual_seed(body["seed"]),
    ).audios[0, 0]


def replicas() -> list[dict]:
    from ray import serve

    return serve.get_deployment_handle("Maker", "default").broadcast("report").results(timeout_s=60)


def wait_for(condition, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_replicas_make_what_the_pipeline_makes_and_one_may_die(melody_ray, pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("MELODY_TOKEN", TOKEN)
    pipe.save_pretrained(tmp_path / "model")
    pipe = MeLoDyPipeline.from_pretrained(tmp_path / "model")  # whose name plans hold
    pipe.set_progress_bar_config(disable=True)
    arguments = melody_ray.Arguments(model=str(tmp_path / "model"), replicas=2, num_cpus=0.5)
    with cluster(melody_ray.build(arguments)) as port, ThreadPoolExecutor(16) as threads:
        refused = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        refused.request("GET", "/v1/models")
        assert refused.getresponse().status == 401
        check_results(port, pipe, threads)
        check_edits_and_plans(port, pipe)
        check_streams(port, pipe)
        check_a_killed_replica(port, pipe, threads)


def check_results(port: int, pipe: MeLoDyPipeline, threads: ThreadPoolExecutor) -> None:
    """Sixteen requests at once: both replicas work, requests that are alike become batches, all is as it must be."""
    prompts = ("a happy waltz", "slow piano", "techno", "sad violin solo")
    bodies = [{"input": prompts[i % 4], "audio_length": 2.5, "seed": i} for i in range(12)]
    bodies += [{"input": "rock", "audio_length": 3.5, "num_inference_steps": 3, "seed": i} for i in range(4)]
    for made, body in zip(threads.map(lambda body: piece(port, body), bodies), bodies):
        assert np.abs(made - alone(pipe, body)).max() < 2 / 32768
    reports = replicas()
    assert len(reports) == 2 and all(report["batches"] for report in reports)
    assert max(size for report in reports for size in report["batches"]) > 1


def check_edits_and_plans(port: int, pipe: MeLoDyPipeline) -> None:
    """They are what the app answers without a cluster, to the byte."""
    recording = io.BytesIO()
    soundfile.write(recording, alone(pipe, {"input": "rock", "audio_length": 3.0, "seed": 5}), 24000, format="FLAC")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    forms = [
        {"edit": "inpaint", "start": "0.5", "end": "1.5"},
        {"edit": "continue", "seconds": "2", "start": "0", "end": "2"},
        {"edit": "loop"},
        {"edit": "vary"},
    ]
    with TestClient(create_app(pipe, TOKEN)) as client:

        def answers(send, address: str) -> list[bytes]:
            body = {"input": "slow piano", "audio_length": 2.0, "seed": 4}
            made = [send(f"{address}/v1/audio/plan", json=body, headers=headers)]
            made.append(send(f"{address}/v1/audio/plan/render", json={"plan": made[0].json()}, headers=headers))
            for form in forms:
                files = {"audio": recording.getvalue()}
                made.append(send(f"{address}/v1/audio/edits", data=form | {"seed": "6"}, files=files, headers=headers))
            assert [answer.status_code for answer in made] == [200] * 6, made
            return [answer.content for answer in made]

        assert answers(requests.post, f"http://127.0.0.1:{port}") == answers(client.post, "")


def check_streams(port: int, pipe: MeLoDyPipeline) -> None:
    """A streamed piece is that of the pipeline; a live stream takes another prompt, and ends when it is told to."""
    body = {"input": "a happy waltz", "audio_length": 12.0, "seed": 3}
    answer = post(port, "/v1/audio/generate", body | {"stream": True, "response_format": "pcm"})
    first = answer.read(4800)
    assert post(port, f"/v1/audio/streams/{answer.headers['X-Stream-Id']}", None, "GET").status in (200, 404)
    made = np.frombuffer(first + answer.read(), "<i2") / 32768
    assert np.abs(made - alone(pipe, body)).max() < 2 / 32768
    live = post(port, "/v1/audio/generate", {"input": "techno", "seed": 1, "stream": True, "response_format": "pcm"})
    path = f"/v1/audio/streams/{live.headers['X-Stream-Id']}"
    live.read(4800)
    assert json.load(post(port, path, {"input": "slow piano", "crossfade": 1}))["input"] == "slow piano"
    live.read(48000 * 12)  # the change is heard by then
    info = json.load(post(port, path, None, "DELETE"))
    assert info["input"] == "slow piano" and info["made_seconds"] >= 12
    live.read()
    wait_for(lambda: not any(report["jobs"] for report in replicas()))


def check_a_killed_replica(port: int, pipe: MeLoDyPipeline, threads: ThreadPoolExecutor) -> None:
    """Whole pieces are all made in the end; the stream that the replica played breaks off, which is no clean end."""
    live = post(port, "/v1/audio/generate", {"input": "techno", "seed": 1, "stream": True, "response_format": "pcm"})
    live.read(4800)
    (player,) = (report["pid"] for report in replicas() if report["jobs"])
    long = {"input": "a happy waltz", "num_inference_steps": 100}  # seconds of work, so that it is killed within
    bodies = [long | {"audio_length": 40.0 + i % 2, "seed": i} for i in range(6)]
    making = [threads.submit(piece, port, body) for body in bodies]
    wait_for(lambda: any(r["pid"] == player and "pieces" in r["jobs"] for r in replicas()))
    os.kill(player, signal.SIGKILL)
    assert not all(future.done() for future in making)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        live.read()
    for future, body in zip(making, bodies):
        assert np.abs(future.result() - alone(pipe, body)).max() < 2 / 32768
    wait_for(lambda: len({report["pid"] for report in replicas()} - {player}) == 2)


def test_a_cluster_needs_a_token(melody_ray, monkeypatch):
    monkeypatch.delenv("MELODY_TOKEN", raising=False)
    with pytest.raises(ValueError, match="set MELODY_TOKEN"):
        melody_ray.build(melody_ray.Arguments())
