// The page: what is asked for, what is being made, and the pieces that there are.

import * as api from "./api.js";
import { Player } from "./player.js";
import { decode, joined, wavOf } from "./sound.js";
import { Suggestions } from "./suggestions.js";
import { drawPlan, Meter, View } from "./view.js";

const KEPT_LIVE_SECONDS = 300; // of live music, for the list of pieces

const $ = (id) => document.getElementById(id);
const el = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const inSeconds = (seconds) => `${Math.round(seconds * 10) / 10} s`;
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

let player, view, meter;
let speed = null; // seconds of music that a second of work makes here
let working = null; // {controller, live: {id, prompt} or null} while something is being made
let shown = null; // the piece in the middle of the page
let part = null; // {start, end} of it that is marked
const pieces = [];
const compared = { A: null, B: null };

// ---- what is said

function say(text) {
  $("status").textContent = text;
}

function complain(error) {
  $("error").hidden = error === null;
  $("error").textContent = error === null ? "" : error.message || String(error);
}

function tellSpeed(seconds) {
  if (seconds) speed = seconds;
  if (speed) {
    const figure = speed >= 10 ? Math.round(speed) : Math.round(speed * 10) / 10;
    $("speed").textContent = `This machine makes ${figure} s of music in a second.`;
  }
}

function showProgress(done, total, text = "") {
  $("progress-area").hidden = false;
  $("made").textContent = text;
  if (total) Object.assign($("progress"), { max: total, value: done });
  else $("progress").removeAttribute("value");
}

// ---- work that can be stopped

async function work(what, task, live = null) {
  stopWork();
  complain(null);
  const mine = (working = { controller: new AbortController(), live });
  say(what);
  showProgress(0, 0);
  try {
    await player.open();
    if (mine !== working) return;
    arrangeButtons();
    await task(mine.controller.signal, mine);
  } catch (error) {
    if (mine.controller.signal.aborted) return;
    say("");
    complain(error instanceof TypeError ? new Error("The server does not answer. Is it still running?") : error);
    if (mine.onStop) {
      player.pause();
      mine.onStop();
    }
  } finally {
    if (mine === working) {
      working = null;
      $("progress-area").hidden = true;
      arrangeButtons();
    }
  }
}

function stopWork() {
  const was = working;
  working = null;
  was?.controller.abort();
  was?.onStop?.();
  $("progress-area").hidden = true;
  return was;
}

function stop() {
  player.pause();
  const was = stopWork();
  if (!was && shown) player.currentTime = 0;
  setRepeat();
  say("Stopped.");
  arrangeButtons();
}

function arrangeButtons() {
  const isLive = Boolean(working?.live);
  $("live").textContent = isLive ? "Change to these words" : "Play live";
  $("live-hint").hidden = isLive;
}

// ---- making a piece

function asked() {
  const number = (id) => ($(id).value === "" ? null : Number($(id).value));
  return {
    input: $("prompt").value.trim(),
    audio_length: number("length"),
    seed: number("seed"),
    negative_prompt: $("negative").value.trim() || null,
    guidance_scale: number("guidance"),
    num_inference_steps: number("steps"),
  };
}

const makeMusic = () =>
  work("Planning the music…", async (signal, mine) => {
    const settings = asked();
    const { rate } = player;
    const seconds = settings.audio_length;
    player.begin(seconds);
    player.play();
    const piece = newPiece({ title: settings.input, settings, seconds });
    const parts = [];
    let made = 0;
    mine.onStop = () => made && keepSamples(piece, joined(parts), "stopped early");
    const started = performance.now();
    const response = await api.generate({ ...settings, stream: true, response_format: "pcm" }, signal);
    settings.seed = Number(response.headers.get("x-seed"));
    show(piece);
    for await (const samples of api.samples(response)) {
      parts.push(samples);
      made += samples.length;
      player.push(samples.slice());
      if (made === samples.length) say("It plays while the rest is being made.");
      else if (player.isWaiting && player.position > 0) {
        const pace = made / rate / ((performance.now() - started) / 1000);
        player.wait(Math.max(1, (seconds - player.currentTime) * (1.1 - pace)));
        say("This machine makes music more slowly than it plays. It goes on when enough is there.");
      }
      showProgress(made, seconds * rate, `${inSeconds(made / rate)} of ${inSeconds(seconds)}`);
      view.extend(samples);
    }
    player.complete();
    tellSpeed(made / rate / ((performance.now() - started) / 1000));
    mine.onStop = null;
    keepSamples(piece, joined(parts));
    say("Writing the file with its plan…");
    await fileOf(piece, signal);
    say(`Done. Seed ${settings.seed}.`);
  });

// The file of a piece. One that was streamed has none yet: the server makes the same again, by its seed, with its plan.
async function fileOf(piece, signal) {
  if (piece.file) return piece.file;
  if (!piece.isUnwritten) return (piece.file = wavOf(piece.samples, player.rate));
  const file = await (await api.generate(piece.settings, signal)).blob();
  const { plan, samples } = await decode(file, player.context);
  Object.assign(piece, { file, plan, samples, isUnwritten: false });
  if (piece === shown) showPlan(piece);
  list();
  return file;
}

// ---- live music

async function playLive() {
  const input = $("prompt").value.trim();
  if (!$("prompt").reportValidity()) return;
  if (working?.live) return changeLive(input);
  const live = { id: null, prompt: input, made: 0 };
  await work("Planning the music…", async (signal, mine) => {
    const { audio_length, ...settings } = asked();
    const { rate } = player;
    player.begin(0, { isLive: true, lead: 0.5 });
    player.play();
    const piece = newPiece({ title: `Live: ${input}`, settings });
    let kept = [];
    mine.onStop = () => kept.length && keepSamples(piece, joined(kept), `the last ${inSeconds(KEPT_LIVE_SECONDS)} at most`);
    const response = await api.generate({ ...settings, stream: true, response_format: "pcm" }, signal);
    live.id = response.headers.get("x-stream-id");
    settings.seed = Number(response.headers.get("x-seed"));
    showLive(piece);
    say(`Playing live: ${input}`);
    for await (const samples of api.samples(response)) {
      kept.push(samples);
      live.made += samples.length;
      meter.add(samples, rate);
      player.push(samples.slice());
      while (kept.reduce((sum, each) => sum + each.length, 0) > KEPT_LIVE_SECONDS * rate) kept.shift();
      if (live.changedAt !== undefined && player.position > live.changedAt) {
        say(`Playing live: ${live.prompt}`);
        delete live.changedAt;
      }
    }
    player.complete();
    mine.onStop();
    mine.onStop = null;
    say("The live music has ended.");
  }, live);
}

async function changeLive(input) {
  const { live } = working;
  if (!live.id) return say("Wait until it plays.");
  complain(null);
  try {
    await api.change(live.id, { input, crossfade: 0 });
    live.prompt = input;
    live.changedAt = live.made; // from what comes next on
    const seconds = Math.ceil((live.changedAt - player.position) / player.rate);
    say(`In about ${seconds} seconds: ${input}`);
  } catch (error) {
    complain(error);
  }
}

// ---- changing a piece

const edit = (piece, what, note, fields, { isLoop = false, from = 0 } = {}) =>
  work(what, async (signal) => {
    const file = await fileOf(piece, signal);
    const response = await api.edit(file, { num_inference_steps: piece.settings.num_inference_steps, ...fields }, signal);
    const seed = Number(response.headers.get("x-seed"));
    const title = fields.input || piece.title;
    const made = newPiece({ title, note, isLoop, settings: { ...piece.settings, input: fields.input || piece.settings.input, seed } });
    made.file = await response.blob();
    Object.assign(made, await decode(made.file, player.context));
    made.seconds = made.samples.length / player.rate;
    made.isUnwritten = false;
    keep(made);
    listen(made, from);
    say(`Done. Seed ${seed}.`);
  });

const words = () => $("part-words").value.trim() || null;
const marked = () => {
  if (part && part.end > part.start) return part;
  complain(new Error("Mark a part first: drag across the waveform, or type from where to where."));
  return null;
};

const partOf = (start, end) => `piece ${shown.number}, ${inSeconds(start)} to ${inSeconds(end)},`;

const EDITS = {
  anew: ({ start, end }) =>
    edit(shown, "Making the part anew…", `${partOf(start, end)} made anew`,
      { edit: "inpaint", start, end, input: words() }, { from: Math.max(0, start - 1) }),
  "go-on": ({ start, end }) =>
    edit(shown, "Going on from there…", `${partOf(start, end)} continued`,
      { edit: "continue", start, end, seconds: 10, input: words() }, { from: Math.max(0, end - start - 1) }),
  loop: ({ start, end }) =>
    edit(shown, "Making the loop…", `${partOf(start, end)} as a loop`,
      { edit: "loop", start, end, input: words() }, { isLoop: true }),
};

const vary = (piece) => edit(piece, "Making it a little different…", `piece ${piece.number}, a little different`, { edit: "vary" });

async function openFile(file) {
  await work("Reading the file…", async () => {
    const piece = newPiece({ title: file.name, settings: {} });
    let found;
    try {
      found = await decode(file, player.context);
    } catch {
      throw new Error(`The browser cannot read ${file.name}. Take a WAV, FLAC, MP3 or Ogg file.`);
    }
    Object.assign(piece, found, { file, isUnwritten: false, seconds: found.samples.length / player.rate });
    piece.settings = { input: piece.plan?.prompt || "", seed: piece.plan?.seed ?? null };
    keep(piece);
    show(piece);
    player.load(piece.samples);
    say("The file is open.");
  });
}

// ---- pieces

function newPiece(values) {
  return { number: 0, title: "", settings: {}, seconds: 0, samples: null, file: null, plan: null, note: "",
    isLoop: false, isUnwritten: true, ...values };
}

function keep(piece) {
  piece.number = pieces.length + 1;
  pieces.push(piece);
  compared.A = compared.B ?? piece;
  compared.B = piece;
  list();
}

// A piece of samples that have come from a stream. With a note they are all there will be.
function keepSamples(piece, samples, note = "") {
  Object.assign(piece, { samples, note, seconds: samples.length / player.rate, isUnwritten: note === "" });
  keep(piece);
  show(piece);
  if (note) player.load(samples, Math.min(player.currentTime, piece.seconds));
}

function showFrame(piece) {
  shown = piece;
  part = null;
  view.unmark();
  $("piece").hidden = false;
  $("piece-title").textContent = piece.title;
  $("piece-about").textContent = about(piece);
}

function show(piece) {
  showFrame(piece);
  $("meter").hidden = true;
  for (const id of ["waveform", "position", "repeat-choice", "pitches-choice"]) $(id).hidden = false;
  for (const id of ["download", "vary"]) $(id).hidden = !piece.samples;
  $("part").hidden = !piece.samples;
  for (const id of ["from", "to"]) Object.assign($(id), { value: "", max: piece.seconds });
  $("position").max = piece.seconds;
  if (piece.samples) view.show(piece.samples, piece.seconds);
  else view.begin(piece.seconds);
  $("repeat").checked = piece.isLoop;
  setRepeat();
  showPlan(piece);
  list();
}

function showLive(piece) {
  showFrame(piece);
  $("meter").hidden = false;
  for (const id of ["waveform", "position", "part", "plan-area", "download", "vary", "repeat-choice", "pitches-choice"]) $(id).hidden = true;
}

function showPlan(piece) {
  $("piece-about").textContent = about(piece);
  $("plan-area").hidden = !piece.plan;
  if (piece.plan) drawPlan($("plan"), piece.plan.tokens.slice(0, Math.round(piece.seconds * piece.plan.token_rate)));
}

function about(piece) {
  const { seed, negative_prompt, guidance_scale, num_inference_steps } = piece.settings;
  return [
    piece.seconds && inSeconds(piece.seconds),
    seed !== null && seed !== undefined && `seed ${seed}`,
    negative_prompt && `without ${negative_prompt}`,
    guidance_scale !== null && guidance_scale !== undefined && `strictness ${guidance_scale}`,
    num_inference_steps && `care ${num_inference_steps}`,
    piece.note,
    piece.plan && "the file holds its plan",
  ].filter(Boolean).join(" · ");
}

function list() {
  $("compare").hidden = pieces.length < 2;
  const focused = document.activeElement?.dataset?.key;
  $("pieces").replaceChildren(...pieces.toReversed().map(row));
  if (focused) document.querySelector(`[data-key="${focused}"]`)?.focus();
}

function row(piece) {
  const button = (text, label, press) => {
    const made = el("button", { type: "button", textContent: text, onclick: press });
    made.setAttribute("aria-label", `${text}: piece ${piece.number}${label}`);
    made.dataset.key = `${text}-${piece.number}`;
    return made;
  };
  const mark = (letter) => {
    const made = button(letter, `, to compare`, () => ((compared[letter] = piece), list()));
    made.setAttribute("aria-pressed", compared[letter] === piece);
    return made;
  };
  const made = el("li", {},
    el("div", { className: "name", textContent: `${piece.number}. ${piece.title}` }),
    el("div", { className: "quiet", textContent: about(piece) }),
    el("div", { className: "buttons" },
      button("Listen", "", () => listen(piece)),
      ...(pieces.length < 2 ? [] : [mark("A"), mark("B")]),
      button("Download", "", () => download(piece)),
      button("A little different", "", () => vary(piece)),
      button("Use its words and seed", "", () => ask(piece))));
  if (piece === shown) made.setAttribute("aria-current", "true");
  return made;
}

async function listen(piece, seconds = 0) {
  await player.open();
  show(piece);
  player.load(piece.samples, seconds);
  setRepeat();
  player.play();
}

// The other of the two, from where the first one is.
function switchPieces() {
  if (working) return;
  listen(shown === compared.B ? compared.A : compared.B, player.currentTime);
}

function ask(piece) {
  const { input, audio_length, seed, negative_prompt, guidance_scale, num_inference_steps } = piece.settings;
  const values = { prompt: input, length: audio_length || 10, seed, negative: negative_prompt, guidance: guidance_scale, steps: num_inference_steps };
  for (const [id, value] of Object.entries(values)) $(id).value = value ?? "";
  $("prompt").dispatchEvent(new Event("input"));
  $("prompt").focus();
}

async function download(piece) {
  try {
    const url = URL.createObjectURL(await fileOf(piece));
    const name = piece.title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "music";
    el("a", { href: url, download: `${name}${piece.settings.seed == null ? "" : `-${piece.settings.seed}`}.wav` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    complain(error);
  }
}

// ---- playing

function setRepeat() {
  player.repeat($("repeat").checked && shown ? [0, shown.seconds] : null);
}

async function togglePlay() {
  if (!player.paused) return player.pause();
  await player.open();
  if (player.end === 0 && shown?.samples) player.load(shown.samples);
  if (player.end === 0) return;
  if (player.position >= player.end && !working) player.currentTime = 0;
  player.play();
}

function showTime() {
  const now = player.currentTime;
  $("time").textContent = player.duration ? `${clock(now)} of ${clock(player.duration)}` : clock(now);
  if (document.activeElement !== $("position") || !player.paused) $("position").value = now;
  $("position").setAttribute("aria-valuetext", `${inSeconds(now)} of ${inSeconds(player.duration)}`);
}

function setPart(start, end) {
  part = { start: Math.max(0, Math.round(start * 100) / 100), end: Math.min(shown.seconds, Math.round(end * 100) / 100) };
  $("from").value = part.start;
  $("to").value = part.end;
}

function typePart() {
  const [start, end] = [Number($("from").value), Number($("to").value)];
  if ($("to").value === "" || !(end > start)) return;
  part = { start, end: Math.min(end, shown.seconds) };
  view.mark(part.start, part.end);
}

// ---- the beginning

async function begin() {
  api.onTokenWanted(async () => {
    const dialog = $("token-dialog");
    $("token").value = "";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    return dialog.returnValue === "ok" && $("token").value ? $("token").value : null;
  });
  const found = await api.health();
  player = new Player(found.sample_rate);
  view = new View(player, $("waveform"), ({ start, end }) => setPart(start, end));
  meter = new Meter($("meter"));
  tellSpeed(found.speed);

  player.addEventListener("play", () => ($("play").textContent = "Pause"));
  player.addEventListener("pause", () => ($("play").textContent = "Play"));
  for (const name of ["timeupdate", "durationchange"]) player.addEventListener(name, showTime);

  $("ask").addEventListener("submit", (event) => (event.preventDefault(), makeMusic()));
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) (event.preventDefault(), $("ask").requestSubmit());
  });
  $("live").addEventListener("click", playLive);
  $("stop").addEventListener("click", stop);
  document.addEventListener("keydown", (event) => event.key === "Escape" && stop());
  $("open").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => $("file").files[0] && openFile($("file").files[0]));
  $("play").addEventListener("click", togglePlay);
  $("repeat").addEventListener("change", setRepeat);
  $("show-spectrogram").addEventListener("change", () => view.showSpectrogram($("show-spectrogram").checked));
  $("position").addEventListener("input", () => (player.currentTime = Number($("position").value)));
  $("download").addEventListener("click", () => download(shown));
  $("vary").addEventListener("click", () => vary(shown));
  $("switch").addEventListener("click", switchPieces);
  for (const id of ["from", "to"]) $(id).addEventListener("change", typePart);
  for (const [id, run] of Object.entries(EDITS)) $(id).addEventListener("click", () => marked() && run(marked()));
  $("listen-part").addEventListener("click", async () => {
    if (!marked()) return;
    await listen(shown, part.start);
    player.repeat([part.start, part.end]);
    say("The part repeats until you stop it.");
  });
  new Suggestions($("words"), $("prompt"), await api.words());
  document.body.dataset.ready = "true";
}

begin().catch(complain);
