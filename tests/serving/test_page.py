"""The page of `melody serve` in a real browser. What is heard is recorded where the page's sound leaves it.

`MELODY_SCREENSHOTS=1` lets the story write the pictures of docs/serving.md.
"""

import base64
import io
import json
import os
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fastapi import FastAPI
from live_server import live_server
from PIL import Image
from starlette.responses import Response
from tiny import make_attentive, make_quiet, make_tiny_components

import melody_diffusers
from melody_diffusers import MeLoDyPipeline, MusicPlan, cli
from melody_diffusers.serving.app import create_app
from melody_diffusers.serving.queue import Limits

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install playwright")
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install chromium")

IMAGES = Path(__file__).parents[2] / "docs" / "images"
RATE = 24000
SLOW = {"length": 300, "steps": 30}  # long enough to be met while it is being made
QUICK = {"length": 2, "steps": 2, "seed": 7}

RECORDER = """
registerProcessor("recorder", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.blocks = [];
  }
  process([[block]]) {
    this.blocks.push(block ? block.slice() : new Float32Array(128));
    if (this.blocks.length === 8) this.port.postMessage(this.blocks.splice(0));
    return true;
  }
});
"""
RECORD = """
window.heard = [];  // {at, block}: when a block of 128 samples came, in ms
const add = AudioWorklet.prototype.addModule, connect = AudioNode.prototype.connect;
AudioWorklet.prototype.addModule = async function (address) {
  await add.call(this, "recorder.js");
  return add.call(this, address);
};
AudioNode.prototype.connect = function (to, ...rest) {
  if (to instanceof AudioDestinationNode) {
    const recorder = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0 });
    recorder.port.onmessage = ({ data }) => {
      for (const block of data) window.heard.push({ at: performance.now(), block });
    };
    connect.call(this, recorder);
  }
  return connect.call(this, to, ...rest);
};
addEventListener("click", () => (window.pressedAt = performance.now()), true);
window.firstSound = () => window.heard.find(({ block }) => block.some((sample) => sample !== 0));
"""


class Page:
    """A page of a server, and what is heard of it."""

    def __init__(self, browser, address: str, **options) -> None:
        self.address = address
        self.context = browser.new_context(accept_downloads=True, reduced_motion="reduce", **options)
        self.tab = self.context.new_page()
        self.faults: list[str] = []
        self.addresses: set[str] = set()
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.tab.on("request", lambda request: self.addresses.add(request.url))
        self.tab.set_default_timeout(int(os.environ.get("PAGE_TIMEOUT", "30000")))
        self.tab.add_init_script(RECORD)

    def open(self) -> "Page":
        self.tab.goto(self.address)
        self.tab.wait_for_selector("body[data-ready]")
        return self

    def __getitem__(self, selector: str):
        return self.tab.locator(selector)

    def press(self, name: str) -> None:
        self.tab.get_by_role("button", name=name, exact=True).click()

    def choose(self, **values) -> None:
        self["details"].evaluate("details => (details.open = true)")
        for name, value in values.items():
            self[f"#{name}"].fill(str(value))

    def make(self, prompt: str, **values) -> None:
        self.choose(prompt=prompt, **values)
        self.press("Make music")

    def until(self, expression: str) -> None:
        self.tab.wait_for_function(f"() => {expression}")

    def until_done(self) -> None:
        self.until("document.querySelector('#status').textContent.startsWith('Done')")
        assert self["#error"].is_hidden(), self["#error"].inner_text()

    def until_heard(self) -> None:
        self.until("window.firstSound() !== undefined")

    def until_heard_for(self, seconds: float) -> None:
        """Waits for so much more to be recorded, silence included."""
        recorded = self.tab.evaluate("() => heard.length")
        self.until(f"heard.length > {recorded + seconds * RATE / 128}")

    def forget(self) -> None:
        self.tab.evaluate("() => void (window.heard = [])")

    def heard(self) -> np.ndarray:
        """All that was heard so far, at 24 kHz."""
        text = self.tab.evaluate(
            """() => {
                const all = new Float32Array(128 * heard.length);
                heard.forEach(({ block }, i) => all.set(block, 128 * i));
                const bytes = new Uint8Array(all.buffer);
                let text = "";
                for (let i = 0; i < bytes.length; i += 8192)
                    text += String.fromCharCode(...bytes.subarray(i, i + 8192));
                return btoa(text);
            }"""
        )
        return np.frombuffer(base64.b64decode(text), "<f4")

    def mark(self, start: float, end: float) -> None:
        """Drags across the waveform; the two are shares of it."""
        self["#waveform"].scroll_into_view_if_needed()
        box = self["#waveform"].bounding_box()
        mouse, y = self.tab.mouse, box["y"] + 30
        mouse.move(box["x"] + start * box["width"], y)
        mouse.down()
        mouse.move(box["x"] + (start + end) / 2 * box["width"], y, steps=4)
        mouse.move(box["x"] + end * box["width"], y, steps=4)
        mouse.up()
        self.until("document.querySelector('#to').value !== ''")

    def part(self) -> tuple[float, float]:
        return float(self["#from"].input_value()), float(self["#to"].input_value())

    def download(self, to: Path, button: str = "#download") -> np.ndarray:
        with self.tab.expect_download() as download:
            self[button].click()
        download.value.save_as(to)
        return soundfile.read(to, dtype="int16")[0]

    def check_accessible(self) -> None:
        found = axe_playwright.Axe().run(self.tab)
        assert found.violations_count == 0, found.generate_report()

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            return json.load(answer)

    def close(self) -> None:
        self.context.close()
        assert self.faults == []
        elsewhere = {each for each in self.addresses if not each.startswith((self.address, "blob:", "data:"))}
        assert elsewhere == set()


def follows(heard: np.ndarray, samples: np.ndarray) -> bool:
    """Whether these 16-bit samples were heard in one go, exactly."""
    wanted = samples.astype(np.float32) / 32768
    first = np.flatnonzero(wanted)[0]
    starts = np.flatnonzero(heard == wanted[first]) - first
    return any(
        start >= 0 and len(heard) >= start + len(wanted) and np.array_equal(heard[start : start + len(wanted)], wanted)
        for start in starts
    )


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Its address; the recorder stands beside the page, for a worklet's module comes from the server alone."""
    app.add_route("/recorder.js", lambda _: Response(RECORDER, media_type="text/javascript"))
    with live_server(app) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained pipeline by the name of one whose words are known."""
    folder = tmp_path_factory.mktemp("page") / "melody-tiny"
    MeLoDyPipeline(**make_quiet(make_attentive(make_tiny_components()))).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(folder):
    return MeLoDyPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def server(pipe):
    with serving(create_app(pipe)) as address:
        yield address


@pytest.fixture
def page(browser, server):
    page = Page(browser, server).open()
    yield page
    page.close()


# ---- the whole story


def test_a_stranger_hears_music_changes_a_part_and_renders_the_file_again(browser, tmp_path):
    """With the model of the package, as a user has it."""
    pipe = MeLoDyPipeline.from_pretrained(melody_diffusers.MELODY_TINY)
    app = create_app(pipe)
    app.state.engine.warm_up()
    with serving(app) as address:
        page = Page(browser, address, viewport={"width": 1000, "height": 900}).open()
        page.press("a slow solo piano piece")
        page.press("Make music")
        page.until_heard()
        delay = page.tab.evaluate("() => firstSound().at - pressedAt")
        print(f"\nthe first sound comes {delay:.0f} ms after the press")
        page.until_done()
        original = page.download(tmp_path / "original.wav")
        assert len(original) == 10 * RATE
        page.until_heard_for(1.0)
        said = page["#speed"].inner_text()
        assert said.startswith("This machine makes ") and said.endswith(" s of music in a second.")

        page.mark(0.3, 0.5)
        start, end = page.part()
        assert start == pytest.approx(3, abs=0.1) and end == pytest.approx(5, abs=0.1)
        page.forget()
        page.press("Make it anew")
        page.until_done()
        anew = page.download(tmp_path / "anew.wav")
        changed = np.flatnonzero(original != anew) / RATE
        assert len(changed) > RATE and start - 0.1 < changed.min() and changed.max() < end + 0.1
        page.until_heard_for(3.0)
        assert follows(page.heard(), anew[round((start + 0.2) * RATE) : round((start + 1.2) * RATE)])

        page.mark(0.0, 0.5)
        page.press("Loop it")
        page.until_done()
        if os.environ.get("MELODY_SCREENSHOTS"):
            take_pictures(page)
        looped = page.download(tmp_path / "loop.wav")
        page.close()
    for name, samples in (("original", original), ("loop", looped)):
        again = tmp_path / f"{name}-again.wav"
        assert cli.main(["plan", "render", str(tmp_path / f"{name}.wav"), "-o", str(again)]) == 0
        assert np.array_equal(soundfile.read(again, dtype="int16")[0], samples)


def take_pictures(page: Page) -> None:
    page["details"].evaluate("details => (details.open = false)")
    page["#pieces button"].nth(0).click()
    page["#show-spectrogram"].check()
    page.mark(0.25, 0.6)
    time.sleep(1)
    page.tab.evaluate("() => scrollTo(0, 0)")
    for name, scheme, width in (("page", "light", 1000), ("page_dark", "dark", 1000), ("page_phone", "light", 360)):
        page.tab.emulate_media(color_scheme=scheme)
        page.tab.set_viewport_size({"width": width, "height": 900})
        time.sleep(1)
        picture = Image.open(io.BytesIO(page.tab.screenshot(full_page=width > 500)))
        picture.convert("RGB").quantize(128).save(IMAGES / f"{name}.png", optimize=True)


# ---- hearing


def test_what_is_heard_is_what_was_made_to_the_sample(page, pipe, tmp_path):
    page.make("a happy waltz", **QUICK)
    page.until_done()
    page.until("document.querySelector('#play').textContent === 'Play'")
    time.sleep(0.3)
    generator = torch.Generator().manual_seed(7)
    made = pipe("a happy waltz", audio_duration=2.0, num_inference_steps=2, generator=generator).audios[0, 0]
    wanted = np.round(made * 32767)
    heard = page.heard()
    first = np.flatnonzero(heard)[0] - np.flatnonzero(wanted)[0]
    assert np.abs(heard[first : first + len(wanted)] * 32768 - wanted).max() <= 2
    assert not heard[first + len(wanted) :].any()
    page.forget()
    page.press("Play")
    page.until("document.querySelector('#play').textContent === 'Play' && heard.length * 128 > 24000 * 2")
    assert follows(page.heard(), page.download(tmp_path / "waltz.wav")[:24000])


def test_music_is_heard_while_it_is_made_and_stop_stops_it_at_once(page):
    page.make("techno", **SLOW)
    page.until_heard()
    assert page["#progress-area"].is_visible() and page.get("/health")["running"] == 1
    page.until("document.querySelector('#progress').value > 0")
    page.until("heard.filter(({ block }) => block.some(Boolean)).length > 100")
    page.press("Stop")
    page.until("heard.at(-1).at > pressedAt + 500")
    quiet_after = page.tab.evaluate("() => heard.findLast(({ block }) => block.some(Boolean)).at - pressedAt")
    assert quiet_after < 150  # of which the recorder's own delay is 43
    assert page["#status"].inner_text() == "Stopped." and page["#progress-area"].is_hidden()
    until = time.monotonic() + 10
    while page.get("/health")["running"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert "stopped early" in page["#piece-about"].inner_text()
    page.make("a happy waltz", **QUICK)  # and it goes on working
    page.until_done()


def test_music_that_is_made_too_slowly_waits_and_goes_on(browser, pipe, tmp_path):
    app = create_app(pipe)
    played = app.state.engine.played

    def slowly(jobs):
        for number, _ in enumerate(played(jobs)):
            yield
            time.sleep(4.0 if number == 0 else 0.0)

    app.state.engine.played = slowly
    with serving(app) as address:
        page = Page(browser, address).open()
        page.make("techno", **QUICK | {"length": 25})
        page.until("document.querySelector('#status').textContent.startsWith('This machine makes music more slowly')")
        page.until_done()
        page.until_heard_for(2.0)
        heard = page.heard()
        page.press("Stop")
        made = page.download(tmp_path / "techno.wav")
        page.close()
    loud = np.flatnonzero(heard)
    gaps = np.diff(loud)
    before, after = loud[gaps.argmax()], loud[gaps.argmax() + 1]
    assert after - before > RATE / 2  # it waited, once, and nothing is missing
    length = before + 1 - loud[0]
    again = np.concatenate([heard[loud[0] : before + 1], heard[after : after + RATE]])
    wanted = made[np.flatnonzero(made)[0] :][: len(again)] / 32768
    assert length > RATE and np.abs(again - wanted).max() <= 2 / 32768


def test_stop_silences_a_piece_that_is_there_and_escape_does_the_same(page):
    page.make("a happy waltz", **QUICK | {"length": 8})
    page.until_done()
    for stop in (lambda: page.press("Stop"), lambda: page.tab.keyboard.press("Escape")):
        page["#repeat"].check()
        if page["#play"].inner_text() == "Play":
            page.press("Play")
        page.forget()
        page.until_heard()
        stop()
        time.sleep(0.2)
        page.forget()
        time.sleep(0.4)
        heard = page.heard()
        assert len(heard) > 2000 and not heard.any()
        assert page["#time"].inner_text() == "0:00 of 0:08"


def test_a_piece_repeats_without_a_gap(page):
    page.make("a happy waltz", **QUICK)
    page.until_done()
    page["#repeat"].check()
    page.press("Stop")
    page.until_heard_for(0.3)
    page.forget()
    page.press("Play")
    page.until_heard_for(4.5)
    heard = page.heard()
    first = np.flatnonzero(heard)[0]
    assert np.array_equal(heard[first : first + 48000], heard[first + 48000 : first + 96000])


def test_live_music_takes_new_words_while_it_plays(page):
    page.choose(prompt="a slow sad violin", seed=1, steps=2)
    page.press("Play live")
    page.until_heard()
    assert page["#status"].inner_text() == "Playing live: a slow sad violin"
    page["#prompt"].fill("fast happy rock")
    with page.tab.expect_response("**/v1/audio/streams/*") as response:
        page.press("Change to these words")
    assert response.value.json()["input"] == "fast happy rock"
    page.until("/^In about \\d+ seconds: fast happy rock$/.test(document.querySelector('#status').textContent)")
    page.until_heard_for(3.0)
    page.press("Stop")
    page.until("document.querySelector('#live').textContent === 'Play live'")
    until = time.monotonic() + 10
    while page.get("/health")["running"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert page["#pieces .name"].inner_text() == "1. Live: a slow sad violin"


# ---- changing


def test_a_part_is_kept_and_continued_and_a_piece_is_varied(page, tmp_path):
    page.make("a happy waltz", **QUICK | {"length": 6})
    page.until_done()
    original = page.download(tmp_path / "original.wav")
    page["#from"].fill("1")
    page["#to"].fill("3")
    page["#part-words"].fill("fast rock")
    page.press("Keep it and go on")
    page.until_done()
    longer = page.download(tmp_path / "longer.wav")
    assert len(longer) == 12 * RATE
    assert np.abs(longer[:40000].astype(int) - original[RATE : RATE + 40000]).max() <= 1
    page["[aria-label='A little different: piece 1']"].click()
    page.until("document.querySelectorAll('#pieces li').length === 3")
    page.until_done()
    varied = page.download(tmp_path / "varied.wav")
    assert len(varied) == len(original) and not np.array_equal(varied, original)


def test_two_pieces_are_compared_at_the_same_place_and_each_downloads_with_its_plan(page, tmp_path):
    for seed in (1, 2):
        page.make("a happy waltz", **QUICK | {"length": 6, "seed": seed})
        page.until_done()
    files = {}
    for seed in (1, 2):
        files[seed] = page.download(tmp_path / f"{seed}.wav", f"[aria-label='Download: piece {seed}']")
        plan = MusicPlan.load(tmp_path / f"{seed}.wav")
        assert plan.seed == seed and plan.prompt == "a happy waltz"
    page["[aria-label='Listen: piece 1']"].click()
    page["#position"].evaluate("range => { range.value = 3; range.dispatchEvent(new Event('input')); }")
    page.forget()
    page.press("Switch between A and B")
    assert page["#pieces li[aria-current] .name"].inner_text().startswith("2. ")
    page.until_heard_for(2.0)
    heard = page.heard()
    assert follows(heard, files[2][round(3.3 * RATE) : round(3.8 * RATE)])
    page["[aria-label='Use its words and seed: piece 1']"].click()
    assert page["#seed"].input_value() == "1" and page["#prompt"].input_value() == "a happy waltz"


def test_a_file_is_opened_with_its_plan(page, tmp_path):
    page.make("a happy waltz", **QUICK)
    page.until_done()
    samples = page.download(tmp_path / "song.wav")
    page.tab.reload()
    page.until("document.body.dataset.ready")
    page["#file"].set_input_files(tmp_path / "song.wav")
    page.until("document.querySelector('#status').textContent === 'The file is open.'")
    assert page["#plan"].get_attribute("aria-label").startswith("The plan: 50 parts")
    page.press("Play")
    page.until_heard_for(2.0)
    assert follows(page.heard(), samples[:24000])
    (tmp_path / "none.wav").write_bytes(b"no sound")
    page["#file"].set_input_files(tmp_path / "none.wav")
    page.until("!document.querySelector('#error').hidden")
    assert page["#error"].inner_text().startswith("The browser cannot read none.wav.")


# ---- asking


def test_words_that_the_model_knows_are_pressed_instead_of_typed(page):
    page.press("jazz swing")
    page.press("happy")
    page.press("piano")
    page["#tempo"].fill("140")
    page["#key"].select_option("E flat")
    page["#mode"].select_option("minor")
    assert page["#prompt"].input_value() == "happy jazz swing with piano, 140 bpm, in E flat minor"
    page.press("happy")
    assert page["#prompt"].input_value() == "jazz swing with piano, 140 bpm, in E flat minor"
    page["#prompt"].fill("my own words")
    assert page["[aria-pressed=true]"].count() == 0
    page.press("techno")
    assert page["#prompt"].input_value() == "my own words, techno"
    page.press("ragtime piano")
    assert page["#prompt"].input_value() == "ragtime piano"


def test_what_the_server_refuses_is_said(browser, pipe):
    with serving(create_app(pipe, limits=Limits(max_seconds=20))) as address:
        page = Page(browser, address).open()
        page.make("techno", length=30)
        page.until("!document.querySelector('#error').hidden")
        assert page["#error"].inner_text() == "Music here lasts at most 20 s; got 30."
        page.make("techno", **QUICK)
        page.until_done()
        page.close()


def test_a_token_is_asked_for(browser, pipe):
    with serving(create_app(pipe, token="secret")) as address:
        page = Page(browser, address)
        page.tab.goto(address)
        page["dialog[open]"].wait_for()
        page.check_accessible()
        page["#token"].fill("wrong")
        page.press("Go on")
        page.until("document.querySelector('#token').value === ''")
        page["#token"].fill("secret")
        page.press("Go on")
        page.until("document.body.dataset.ready")
        page.make("techno", **QUICK)
        page.until_done()
        page.close()


# ---- for everyone


def test_all_of_it_works_by_keyboard_alone(page, tmp_path):
    keyboard = page.tab.keyboard

    def go_to(selector: str) -> None:
        for _ in range(120):
            if page.tab.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            keyboard.press("Tab")
        pytest.fail(f"{selector} is not reached by Tab")

    go_to("#prompt")
    keyboard.type("a happy waltz")
    go_to("#length")
    keyboard.press("Control+a")
    keyboard.type("4")
    keyboard.press("Enter")
    page.until_done()
    keyboard.press("Escape")
    go_to("#play")
    page.forget()
    keyboard.press("Space")
    page.until_heard()
    go_to("#position")
    before = float(page["#position"].input_value())
    for _ in range(10):
        keyboard.press("ArrowRight")
    assert float(page["#position"].input_value()) > before
    go_to("#from")
    keyboard.type("1")
    keyboard.press("Tab")
    keyboard.type("2")
    go_to("#anew")
    keyboard.press("Enter")
    page.until("document.querySelectorAll('#pieces li').length === 2")
    go_to("[aria-label^='A: piece 2']")
    keyboard.press("Space")
    assert page["[aria-label^='A: piece 2']"].get_attribute("aria-pressed") == "true"
    assert page.tab.evaluate("() => document.activeElement.getAttribute('aria-label')") == "A: piece 2, to compare"


@pytest.mark.parametrize("scheme, width", [("light", 1000), ("dark", 1000), ("light", 360)])
def test_nothing_is_in_the_way_of_anyone(browser, server, scheme, width):
    page = Page(browser, server, color_scheme=scheme, viewport={"width": width, "height": 740}).open()
    page.check_accessible()
    page.press("techno")
    page.make("techno", **QUICK)
    page.until_done()
    page["#from"].fill("0.5")
    page["#to"].fill("1.5")
    page["#show-spectrogram"].check()
    page.tab.wait_for_timeout(300)
    page["[aria-label='A little different: piece 1']"].click()
    page.until("document.querySelectorAll('#pieces li').length === 2")
    page.until_done()
    page.check_accessible()
    assert page.tab.evaluate("() => document.documentElement.scrollWidth") <= width
    small = "() => [...document.querySelectorAll('button')].filter((b) => b.offsetHeight && b.offsetHeight < 24).length"
    assert page.tab.evaluate(small) == 0
    page.close()
