// What is seen of a piece: waveform, spectrogram, a marked part, the plan, and a meter for live music.

import Regions from "./vendor/wavesurfer/regions.esm.js";
import Spectrogram from "./vendor/wavesurfer/spectrogram.esm.js";
import WaveSurfer from "./vendor/wavesurfer/wavesurfer.esm.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const waveColours = () => ({ waveColor: colour("wave"), progressColor: colour("played"), cursorColor: colour("text") });

export class View {
  // `onPart` is told {start, end} of the marked part in seconds, or null.
  constructor(player, container, onPart) {
    this.player = player;
    this.onPart = onPart;
    this.spectrogram = null;
    this.wantsSpectrogram = false;
    this.part = null;
    this.waves = WaveSurfer.create({
      container, media: player, height: 112, normalize: true, barWidth: 2, barGap: 1, barRadius: 2, ...waveColours(),
    });
    this.regions = this.waves.registerPlugin(Regions.create());
    this.regions.enableDragSelection({ color: colour("part") });
    this.regions.on("region-created", (region) => this.#take(region));
    this.regions.on("region-updated", (region) => this.#take(region));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.waves.setOptions(waveColours());
      this.part?.setOptions({ color: colour("part") });
    });
  }

  // Samples of a piece of `seconds`, of which the later ones may not be there yet.
  show(samples, seconds, isWhole = true) {
    const whole = new Float32Array(Math.max(samples.length, Math.round(seconds * this.player.rate)));
    for (let i = 0; i < samples.length; i++) whole[i] = samples[i] / 32768;
    this.isWhole = isWhole;
    this.#arrangeSpectrogram();
    this.waves.load("", [whole], seconds).catch(() => {}); // another piece came between
  }

  showSpectrogram(isWanted) {
    this.wantsSpectrogram = isWanted;
    this.#arrangeSpectrogram();
  }

  mark(start, end) {
    this.isQuiet = true;
    if (this.part) this.part.setOptions({ start, end });
    else this.part = this.regions.addRegion({ start, end, color: colour("part") });
    this.isQuiet = false;
  }

  unmark() {
    this.regions.clearRegions();
    this.part = null;
  }

  #take(region) {
    if (region !== this.part) this.part?.remove();
    this.part = region;
    if (!this.isQuiet) this.onPart({ start: region.start, end: region.end });
  }

  #arrangeSpectrogram() {
    const isDue = this.wantsSpectrogram && this.isWhole;
    if (isDue === (this.spectrogram !== null)) return;
    if (isDue) {
      this.spectrogram = this.waves.registerPlugin(
        Spectrogram.create({ height: 128, frequencyMax: this.player.rate / 2, scale: "mel", fftSamples: 1024, colorMap: "roseus" }),
      );
    } else {
      this.waves.unregisterPlugin(this.spectrogram);
      this.spectrogram = null;
    }
  }
}

// Each token of a plan as a column of its own colour; equal tokens look equal.
export function drawPlan(canvas, tokens) {
  canvas.width = Math.max(1, tokens.length);
  const context = canvas.getContext("2d");
  tokens.forEach((token, i) => {
    context.fillStyle = `hsl(${(token * 137.508) % 360} 45% ${45 + ((token * 7) % 20)}%)`;
    context.fillRect(i, 0, 1, 1);
  });
  const kinds = new Set(tokens).size;
  canvas.setAttribute("aria-label", `The plan: ${tokens.length} parts of ${kinds} kinds`);
}

// The loudness of the last samples, for music without an end.
export class Meter {
  constructor(canvas) {
    this.canvas = canvas;
    this.levels = [];
  }

  add(samples, rate) {
    const size = Math.round(rate / 10);
    for (let from = 0; from < samples.length; from += size) {
      let peak = 0;
      for (const sample of samples.subarray(from, from + size)) peak = Math.max(peak, Math.abs(sample));
      this.levels.push(peak / 32768);
    }
    this.levels = this.levels.slice(-300);
    const { canvas } = this;
    canvas.width = canvas.clientWidth || 600;
    const context = canvas.getContext("2d");
    context.fillStyle = colour("played");
    this.levels.forEach((level, i) => {
      const height = Math.max(2, level * canvas.height);
      context.fillRect((i * canvas.width) / 300, (canvas.height - height) / 2, Math.max(1, canvas.width / 300 - 1), height);
    });
  }
}
