"""`melody serve` as clients see it."""

import asyncio
import contextlib
import http.client
import io
import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
import torch
import yaml
from live_server import live_server
from starlette.testclient import TestClient
from tiny import make_attentive, make_quiet, make_tiny_components

import melody_diffusers
from melody_diffusers import MeLoDyPipeline, MusicPlan, cli
from melody_diffusers.cli.parser import STYLES
from melody_diffusers.serving.app import create_app
from melody_diffusers.serving.queue import Full, Job, Limits, Overdue, Queue, Stopped

LOCAL = "http://127.0.0.1:8024"
PIECE = {"input": "a happy waltz", "audio_length": 2.0, "num_inference_steps": 2, "seed": 7}
GENERATE = "/v1/audio/generate"
WORDS = {8: "eight", 11: "eleven", 32: "thirty-two"}


@pytest.fixture(scope="module")
def pipe():
    pipe = MeLoDyPipeline(**make_quiet(make_attentive(make_tiny_components())))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def client(pipe):
    with TestClient(create_app(pipe), LOCAL) as client:
        yield client


@pytest.fixture(scope="module")
def server(pipe):
    with live_server(create_app(pipe)) as address:
        yield address


def read(content: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(content), dtype="float32")[0]


def connection(server: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(server).netloc, timeout=60)


def ask(server: str, path: str, body: dict | None = None, method: str | None = None) -> tuple[int, bytes, dict]:
    link = connection(server)
    payload = None if body is None else json.dumps(body)
    link.request(method or ("GET" if body is None else "POST"), path, payload, {"Content-Type": "application/json"})
    answer = link.getresponse()
    result = answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    link.close()
    return result


def health(server: str) -> dict:
    return json.loads(ask(server, "/health")[1])


def wait_for(condition, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


class Blocker:
    """A job of another client that takes the worker until it is let go."""

    def __init__(self, queue: Queue, client: str = "another") -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.job = Job(self.run, client, {})
        self.queue = queue

    def run(self, jobs):
        self.begun.set()
        assert self.let_go.wait(30)
        jobs[0].give(b"")
        yield

    def start(self) -> None:
        async def add() -> None:
            self.queue.add(self.job)

        asyncio.run(add())
        assert self.begun.wait(10)


# ---- pieces


def test_a_file_is_what_the_pipeline_makes_and_its_plan_gives_it_again(client, pipe, tmp_path):
    answer = client.post(GENERATE, json=PIECE)
    assert answer.status_code == 200 and answer.headers["content-type"] == "audio/wav"
    assert answer.headers["x-seed"] == "7" and answer.headers["x-sample-rate"] == "24000"
    generator = torch.Generator().manual_seed(7)
    made = pipe("a happy waltz", audio_duration=2.0, num_inference_steps=2, generator=generator).audios[0, 0]
    assert np.abs(read(answer.content) - made).max() < 1 / 32767
    (tmp_path / "song.wav").write_bytes(answer.content)
    assert MusicPlan.load(tmp_path / "song.wav").prompt == "a happy waltz"
    pipe.save_pretrained(tmp_path / "model")
    arguments = ["plan", "render", tmp_path / "song.wav", "--model", tmp_path / "model", "-o", tmp_path / "again.wav"]
    assert cli.main([str(each) for each in arguments]) == 0
    assert np.array_equal(read(answer.content), soundfile.read(tmp_path / "again.wav", dtype="float32")[0])


def test_a_seed_that_was_not_given_is_told_and_gives_the_piece_again(client):
    first = client.post(GENERATE, json=PIECE | {"seed": None})
    again = client.post(GENERATE, json=PIECE | {"seed": int(first.headers["x-seed"])})
    other = client.post(GENERATE, json=PIECE | {"seed": None})
    assert first.content == again.content != other.content


@pytest.mark.parametrize(
    "kind, media, subtype",
    [
        ("wav", "audio/wav", "PCM_16"),
        ("flac", "audio/flac", "PCM_16"),
        ("ogg", "audio/ogg", "VORBIS"),
        ("opus", "audio/ogg", "OPUS"),
        ("mp3", "audio/mpeg", "MPEG_LAYER_III"),
    ],
)
def test_every_kind_of_file_is_of_that_kind_and_holds_its_plan(client, kind, media, subtype):
    answer = client.post(GENERATE, json=PIECE | {"response_format": kind})
    assert answer.headers["content-type"] == media
    found = soundfile.info(io.BytesIO(answer.content))
    assert found.subtype == subtype and found.samplerate == 24000 and found.duration == pytest.approx(2, abs=0.1)
    assert MusicPlan.from_sound_file(answer.content).seconds == 2.0


def test_pcm_is_the_samples_of_the_wav(client):
    wav = client.post(GENERATE, json=PIECE).content
    pcm = client.post(GENERATE, json=PIECE | {"response_format": "pcm"}).content
    assert np.array_equal(np.frombuffer(pcm, "<i2"), soundfile.read(io.BytesIO(wav), dtype="int16")[0])


def test_a_loop_lasts_what_its_bars_say_and_an_ending_fades(client):
    loop = {"input": "techno", "loop": True, "bars": 1, "bpm": 120, "beats_per_bar": 3, "num_inference_steps": 2}
    answer = client.post(GENERATE, json=loop)
    assert len(read(answer.content)) == 36000
    assert MusicPlan.from_sound_file(answer.content).rendering["loop"] is True
    faded, cut = (read(client.post(GENERATE, json=PIECE | {"ending": e}).content) for e in ("fade", None))
    assert np.abs(faded[-2000:]).max() < 0.5 * np.abs(cut[-2000:]).max()
    assert np.array_equal(faded[:30000], cut[:30000])


def test_guidance_steps_and_a_negative_prompt_reach_the_pipeline(client):
    plain = client.post(GENERATE, json=PIECE).content
    for change in (
        {"guidance_scale": 7.0},
        {"num_inference_steps": 3},
        {"negative_prompt": "sad rock violin", "lm_guidance_scale": 3.0},
    ):
        answer = client.post(GENERATE, json=PIECE | change)
        assert answer.status_code == 200 and answer.content[5000:6000] != plain[5000:6000], change


# ---- streams


def test_a_stream_is_the_same_piece_and_comes_while_it_is_made(server):
    piece = PIECE | {"audio_length": 45.0, "num_inference_steps": 4}
    link = connection(server)
    link.request("POST", GENERATE, json.dumps(piece | {"stream": True}), {"Content-Type": "application/json"})
    answer = link.getresponse()
    assert answer.status == 200 and answer.getheader("content-type") == "audio/wav"
    place = f"/v1/audio/streams/{answer.getheader('x-stream-id')}"
    first = answer.read(2000)
    made = json.loads(ask(server, place)[1])
    assert 0 < made["made_seconds"] < 45
    assert ask(server, place, {"input": "rock"})[0] == 409  # a piece keeps its prompt
    streamed = read(first + answer.read())
    whole = read(ask(server, GENERATE, piece)[1])
    assert len(streamed) == len(whole) == 45 * 24000
    assert np.abs(streamed - whole).max() < 2 / 32767
    wait_for(lambda: ask(server, place)[0] == 404)


def test_a_live_stream_changes_its_prompt_and_ends_when_it_is_told_to(pipe):
    def live(server: str, change: bool) -> np.ndarray:
        link = connection(server)
        body = {"input": "a slow sad violin", "stream": True, "response_format": "pcm", "seed": 1}
        link.request("POST", GENERATE, json.dumps(body), {"Content-Type": "application/json"})
        answer = link.getresponse()
        place = f"/v1/audio/streams/{answer.getheader('x-stream-id')}"
        sound = answer.read(48000)
        if change:
            assert ask(server, place, {"input": " "})[0] == 422  # the stream survives that
            status, told, _ = ask(server, place, {"input": "fast happy rock", "crossfade": 0})
            assert status == 200 and json.loads(told)["input"] == "fast happy rock"
        while len(sound) < 2 * 24000 * 30:
            sound += answer.read(4800)
        assert ask(server, place, method="DELETE")[0] == 200
        answer.read()  # it ends
        link.close()
        return np.frombuffer(sound[: 2 * 24000 * 30], "<i2")

    with live_server(create_app(pipe, limits=Limits(lead_seconds=60.0))) as server:
        same, changed = live(server, False), live(server, True)
    assert np.array_equal(same[:24000], changed[:24000]) and not np.array_equal(same, changed)


def test_a_live_stream_is_made_no_further_ahead_than_it_needs_to_be(pipe):
    with live_server(create_app(pipe, limits=Limits(lead_seconds=1.0))) as server:
        link = connection(server)
        link.request(
            "POST", GENERATE, json.dumps({"input": "techno", "stream": True}), {"Content-Type": "application/json"}
        )
        answer = link.getresponse()
        place = f"/v1/audio/streams/{answer.getheader('x-stream-id')}"
        started = time.monotonic()
        answer.read(100)
        time.sleep(2.0)
        made = json.loads(ask(server, place)[1])["made_seconds"]
        assert made < time.monotonic() - started + 1.0 + 2.6  # the lead, and a chunk
        link.close()


def test_whoever_leaves_stops_the_work(server):
    before = ask(server, GENERATE, PIECE)[1]
    for body in (
        {"input": "techno", "audio_length": 300.0, "num_inference_steps": 100},
        {"input": "techno", "audio_length": 300.0, "num_inference_steps": 100, "stream": True},
        {"input": "techno", "stream": True},
    ):
        link = connection(server)
        link.request("POST", GENERATE, json.dumps(body), {"Content-Type": "application/json"})
        wait_for(lambda: health(server)["running"] == 1)
        link.sock.close()
        link.close()
        started = time.monotonic()
        wait_for(lambda: health(server)["running"] == 0)
        assert time.monotonic() - started < 5
    assert ask(server, GENERATE, PIECE)[1] == before


# ---- edits and plans


@pytest.fixture(scope="module")
def song(client) -> bytes:
    return client.post(GENERATE, json=PIECE | {"audio_length": 4.0}).content


def edit(client, audio: bytes, **fields):
    form = {"num_inference_steps": 2, "seed": 3} | fields
    answer = client.post("/v1/audio/edits", data=form, files={"audio": ("song", audio)})
    assert answer.status_code == 200, answer.content
    return answer.content


def test_a_region_is_made_anew_and_the_rest_stays_as_it_is(client):
    stereo = 0.3 * np.sin(np.arange(4 * 44100)[:, None] * [0.03, 0.05]).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, stereo, 44100, format="FLAC")
    made = soundfile.read(
        io.BytesIO(edit(client, file.getvalue(), edit="inpaint", start=1, end=2, response_format="flac")), dtype="int16"
    )[0]
    before = soundfile.read(io.BytesIO(file.getvalue()), dtype="int16")[0]
    assert made.shape == before.shape
    assert np.array_equal(made[:44100], before[:44100]) and np.array_equal(made[88200:], before[88200:])
    assert not np.array_equal(made[44100:88200], before[44100:88200])


def test_a_recording_goes_on(client, song):
    longer = read(edit(client, song, edit="continue", seconds=1.5))
    assert len(longer) == 5.5 * 24000 and np.array_equal(longer[: 4 * 24000], read(song))
    kept = read(edit(client, song, edit="continue", start=1, end=2, seconds=1.5))
    assert len(kept) == 2.5 * 24000
    assert np.abs(kept[:24000] - read(song)[24000:48000]).max() < 1 / 32767


def test_a_region_becomes_a_loop_of_its_plan(client, song):
    looped = edit(client, song, edit="loop", start=1, end=3)
    plan = MusicPlan.from_sound_file(looped)
    assert len(read(looped)) == 48000 and plan.rendering["loop"]
    assert plan.tokens == MusicPlan.from_sound_file(song).tokens[25:75]
    file = io.BytesIO()
    soundfile.write(file, read(song), 24000, format="WAV")  # without its plan, which is read from the sound
    assert len(read(edit(client, file.getvalue(), edit="loop", start=1, end=3))) == 48000


def test_a_piece_is_varied_by_degrees(client, song):
    slight, strong = (read(edit(client, song, edit="vary", strength=strength)) for strength in (0.2, 1.0))
    nothing = read(edit(client, song, edit="vary", strength=0))
    assert len(slight) == len(strong) == 4 * 24000
    assert 0 < np.abs(slight - nothing).mean() < np.abs(strong - nothing).mean()


def test_a_plan_is_given_taken_and_read(client, song):
    whole = PIECE | {"audio_length": 4.0}
    plan = client.post("/v1/audio/plan", json=whole).json()
    assert MusicPlan.from_text(json.dumps(plan)) == MusicPlan.from_sound_file(song)
    assert client.post("/v1/audio/plan/read", files={"audio": song}).json() == plan
    render = "/v1/audio/plan/render"
    assert client.post(render, json={"plan": plan}).content == song
    assert client.post(render, json={"plan": plan, "seed": 8}).content != song
    shorter = plan | {"tokens": plan["tokens"][:50], "seconds": 2.0}
    assert len(read(client.post(render, json={"plan": shorter}).content)) == 48000
    answer = client.post(render, json={"plan": plan | {"tokens": [99999]}})
    assert answer.status_code == 422 and answer.json()["argument"] == "plan"


# ---- the queue


def test_requests_that_wait_and_are_alike_are_one_batch_and_sound_as_alone(pipe):
    app = create_app(pipe)
    with live_server(app) as server:
        blocker = Blocker(app.state.queue)
        blocker.start()
        bodies = [PIECE | {"input": text, "seed": seed} for seed, text in enumerate(["rock", "a waltz", "sad piano"])]
        bodies.append(PIECE | {"audio_length": 1.0})  # not like the others
        made: dict[int, bytes] = {}

        def go(number: int) -> None:
            made[number] = ask(server, GENERATE, bodies[number])[1]

        threads = [threading.Thread(target=go, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: app.state.queue.num_waiting == 4)
        blocker.let_go.set()
        for thread in threads:
            thread.join(60)
        assert app.state.queue.batches == {1: 2, 3: 1}
        for number, body in enumerate(bodies):
            alone = read(ask(server, GENERATE, body)[1])
            assert np.abs(read(made[number]) - alone).max() < 1e-3, number


def test_sixteen_wait_and_the_next_is_told_when_to_come_back(pipe):
    app = create_app(pipe)
    with live_server(app) as server:
        blocker = Blocker(app.state.queue)
        blocker.start()
        # 17 places: that of the blocker, which came by no door, is not one of them
        threads = [threading.Thread(target=ask, args=(server, GENERATE, PIECE), daemon=True) for _ in range(17)]
        for thread in threads:
            thread.start()
        wait_for(lambda: app.state.queue.places == 17)
        status, body, headers = ask(server, GENERATE, PIECE)
        assert status == 429 and json.loads(body)["code"] == "busy" and 1 <= int(headers["retry-after"]) <= 60
        assert b"melody_refused_total 1.0" in ask(server, "/metrics")[1]
        blocker.let_go.set()
        for thread in threads:
            thread.join(60)
        assert ask(server, GENERATE, PIECE)[0] == 200


def test_jobs_that_are_added_together_and_are_alike_begin_together():
    async def scenario() -> None:
        queue = Queue(Limits())

        def work(jobs):
            for job in jobs:
                job.give(len(jobs))
            yield

        jobs = [Job(work, "", {}, alike="these", size=0.1) for _ in range(3)] + [Job(work, "another", {})]
        queue.add(*jobs)
        assert [await anext(job.parts(10)) for job in jobs] == [3, 3, 3, 1]
        assert queue.batches == {3: 1, 1: 1}
        queue.close()

    asyncio.run(scenario())


def test_a_client_has_one_job_at_a_time_and_others_go_side_by_side():
    async def scenario() -> list[str]:
        queue, log = Queue(Limits()), []

        def work(jobs):
            for part in range(3):
                log.append(f"{jobs[0].arguments['name']}{part}")
                jobs[0].give(part)
                yield

        hold = threading.Event()

        def held(jobs):
            hold.wait(10)
            yield

        jobs = [Job(held, "c", {}), *(Job(work, name[0], {"name": name}) for name in ("a", "a'", "b"))]
        for job in jobs:
            queue.add(job)
        hold.set()
        for job in jobs:
            async for _ in job.parts(10):
                pass
        queue.close()
        return log

    log = asyncio.run(scenario())
    assert log.index("b0") < log.index("a2") and log.index("a2") < log.index("a'0")


def test_work_that_is_late_or_stopped_or_fails_ends_as_it_says():
    async def scenario() -> None:
        queue = Queue(Limits(max_waiting=1))

        def sleeps(jobs):
            while True:
                time.sleep(0.01)
                jobs[0].check()
                yield

        def fails(jobs):
            raise FloatingPointError("NaN")
            yield

        late = Job(sleeps, "a", {})
        queue.add(late)
        with pytest.raises(Overdue):
            async for _ in late.parts(0.1):
                pass
        queue.stop(late)
        with pytest.raises(Stopped):
            async for _ in late.parts(5):
                pass
        failed = Job(fails, "a", {})
        queue.add(failed)
        with pytest.raises(FloatingPointError):
            async for _ in failed.parts(5):
                pass
        with queue.place(), pytest.raises(Full):
            with queue.place():
                pass
        assert queue.places == 0 and queue.num_running == 0
        queue.close()

    asyncio.run(scenario())


def test_a_stream_that_nobody_reads_rests_and_then_ends():
    async def scenario() -> int:
        queue, made = Queue(Limits(deadline_seconds=0.5)), []

        def endless(jobs):
            while True:
                jobs[0].check()
                made.append(1)
                jobs[0].give(b"x")
                yield

        job = Job(endless, "a", {})
        queue.add(job)
        while queue.num_running or not made:
            await asyncio.sleep(0.05)
        queue.close()
        return len(made)

    assert asyncio.run(scenario()) == 4


def test_what_takes_too_long_is_answered_so(pipe):
    app = create_app(pipe, limits=Limits(deadline_seconds=0.3))
    with TestClient(app, LOCAL) as client:
        blocker = Blocker(app.state.queue)
        blocker.start()
        answer = client.post(GENERATE, json=PIECE)
        blocker.let_go.set()
        assert answer.status_code == 503 and answer.json()["code"] == "overdue"


def test_a_failure_is_told_without_its_reason(pipe, monkeypatch, caplog):
    with TestClient(create_app(pipe), LOCAL) as client:
        weight = next(pipe.dual_path.parameters())
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.fill_(float("nan"))
        try:
            answer = client.post(GENERATE, json=PIECE)
        finally:
            with torch.no_grad():
                weight.copy_(kept)
        assert answer.status_code == 500 and answer.json()["code"] == "failed"
        assert "NaN" not in answer.text and "NaN" in caplog.text
        assert client.post(GENERATE, json=PIECE).status_code == 200


# ---- the door


def test_a_token_opens_what_it_guards_and_nothing_else_does(pipe):
    with TestClient(create_app(pipe, token="s3cret"), "http://music.example") as client:
        for path in ("/v1/models", "/metrics"):
            for sent in (None, "Bearer", "Bearer wrong", "Basic s3cret", "Bearer s3cret2", "Bearer s3cre"):
                answer = client.get(path, headers={} if sent is None else {"Authorization": sent})
                assert answer.status_code == 401 and answer.json()["code"] == "unauthorized"
                assert answer.headers["www-authenticate"] == "Bearer"
            assert client.get(path, headers={"Authorization": "Bearer s3cret"}).status_code == 200
        assert client.post(GENERATE, json=PIECE).status_code == 401
        assert client.get("/health").status_code == 200 and client.get("/").status_code == 200


def test_without_a_token_no_foreign_page_is_answered(client):
    for headers in (
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "https://evil.example"},
    ):
        answer = client.post(GENERATE, json=PIECE, headers=headers)
        assert answer.status_code == 403 and answer.json()["code"] == "forbidden"
    assert client.get("/health", headers={"Origin": LOCAL}).status_code == 200
    assert client.get("/health", headers={"Host": "localhost"}).status_code == 200
    assert client.get("/health", headers={"Host": "[::1]:8024"}).status_code == 200


def test_the_page_and_every_answer_forbid_what_they_do_not_need(client):
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "http" not in re.sub(r"http://127\.0\.0\.1:8024\S*", "", page.text)  # nothing from elsewhere


# ---- what clients are told


def test_what_melody_tiny_knows_is_what_its_card_says():
    known = json.loads((Path(melody_diffusers.__file__).parent / "serving" / "knows.json").read_text())["melody-tiny"]
    asked = yaml.safe_load((Path(melody_diffusers.__file__).parent / "evaluation" / "prompts.yaml").read_text())
    card = (Path(melody_diffusers.MELODY_TINY) / "README.md").read_text()
    text, readme, help_text = (
        " ".join(each.split()).lower() for each in (card, (Path(__file__).parents[2] / "README.md").read_text(), STYLES)
    )
    for heading, name, noun in (("style", "styles", "styles"), ("family", "leads", "families")):
        assert sorted(known[name]) == sorted(asked[heading])  # what `melody evaluate` asks for
        assert f"{WORDS[len(known[name])]} {noun} ({', '.join(known[name])})" in text
        if f"## Recognised by {heading}\n" in card:
            table = card.partition(f"## Recognised by {heading}\n")[2].partition("\n## ")[0]
            assert sorted(known[name]) == sorted(re.findall(r"^\| ([a-z][\w -]*) \| \d", table, re.MULTILINE))
    assert f"{WORDS[len(known['styles'])]} styles: {', '.join(known['styles'])}. " in help_text
    assert f"its {WORDS[len(known['styles'])]} styles" in readme
    low, high = known["tempo_bpm"]
    assert f"{low} to {high} bpm" in text and WORDS[len(known["moods"])] + " moods" in text
    assert all(f"*{example}*" in readme for example in known["examples"])


def test_models_prompts_health_and_metrics(client, pipe):
    name = pipe._base_name()
    assert [each["id"] for each in client.get("/v1/models").json()["data"]] == [name]
    assert client.get("/v1/prompts").json()["styles"] == []  # of a model that is not melody-tiny nothing is claimed
    client.post(GENERATE, json=PIECE | {"model": name})
    wait_for(lambda: client.get("/health").json()["running"] == 0)
    found = client.get("/health").json()
    assert found["status"] == "ok" and found["speed"] > 0 and found["waiting"] == 0
    assert re.search(r"^melody_music_seconds_total [1-9]", client.get("/metrics").text, re.MULTILINE)
    refused = client.post(GENERATE, json=PIECE | {"model": "another"})
    assert refused.status_code == 422 and refused.json()["argument"] == "model"


def test_openais_client_works_as_it_is(server):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    extra = {"audio_length": 2.0, "seed": 7, "num_inference_steps": 2}
    spoken = client.audio.speech.create(model="tts-1", voice="alloy", input="a happy waltz", extra_body=extra)
    assert soundfile.info(io.BytesIO(spoken.content)).subtype == "MPEG_LAYER_III"
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="a happy waltz", response_format="pcm", extra_body=extra | {"stream": True}
    ) as streamed:
        sound = np.frombuffer(b"".join(streamed.iter_bytes()), "<i2")
    whole = soundfile.read(io.BytesIO(ask(server, GENERATE, PIECE)[1]), dtype="int16")[0]
    assert np.abs(sound - whole.astype(int)).max() <= 1
    assert len(list(client.models.list())) == 1
    with pytest.raises(openai.UnprocessableEntityError, match="input"):
        client.audio.speech.create(model="tts-1", voice="alloy", input="")


# ---- the command


def test_the_command_serves_until_it_is_interrupted(tiny_folder, capfd):
    place, found = "http://127.0.0.1:18231", {}

    def visit() -> None:
        def answers() -> bool:
            with contextlib.suppress(OSError):
                found.update(health(place))
            return bool(found)

        try:
            wait_for(answers)
            found["status"] = ask(place, GENERATE, PIECE)[0]
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    visitor = threading.Thread(target=visit, daemon=True)
    visitor.start()
    assert cli.main(["serve", "--model", tiny_folder, "--port", "18231"]) in (0, 130)
    visitor.join()
    assert found["status"] == 200 and found["speed"] > 0
    assert re.search(rf"^{place}  \(.*times real time", capfd.readouterr().err, re.MULTILINE)


def test_the_command_lets_others_in_with_a_token_alone(monkeypatch, capsys):
    monkeypatch.delenv("MELODY_TOKEN", raising=False)
    assert cli.main(["serve", "--host", "0.0.0.0"]) == 2
    assert "MELODY_TOKEN" in capsys.readouterr().err
    assert "MELODY_TOKEN" not in os.environ
