// What is seen of a piece: waveform, spectrogram, a marked part, the plan, and a meter for live music.

import Regions from "./vendor/wavesurfer/regions.esm.js";
import Spectrogram from "./vendor/wavesurfer/spectrogram.esm.js";
import WaveSurfer from "./vendor/wavesurfer/wavesurfer.esm.js";

const PEAKS_PER_SECOND = 200;
const REDRAW_MS = 300;

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

  // A piece that is there.
  show(samples, seconds) {
    this.begin(seconds);
    this.#measure(samples);
    this.samples = samples;
    this.#draw();
  }

  // A piece of `seconds` that is being made, and what came of it.
  begin(seconds) {
    this.seconds = seconds;
    this.peaks = new Float32Array(Math.max(1, Math.ceil(seconds * PEAKS_PER_SECOND)));
    this.measured = this.drawnAt = 0;
    this.samples = null;
    this.#draw();
  }

  extend(samples) {
    this.#measure(samples);
    if (performance.now() - this.drawnAt > REDRAW_MS) this.#draw();
  }

  showSpectrogram(isWanted) {
    this.wantsSpectrogram = isWanted;
    if (this.peaks) this.#draw();
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

  #measure(samples) {
    const size = this.player.rate / PEAKS_PER_SECOND;
    for (let i = 0; i < samples.length; i++, this.measured++) {
      const at = Math.min(this.peaks.length - 1, Math.floor(this.measured / size));
      if (Math.abs(samples[i]) > Math.abs(this.peaks[at]) * 32768) this.peaks[at] = samples[i] / 32768;
    }
  }

  // The waveform needs peaks alone, the spectrogram all samples, which would take long while music is being made.
  #draw() {
    const hasPitches = this.wantsSpectrogram && this.samples !== null;
    if (hasPitches && !this.spectrogram) {
      this.spectrogram = this.waves.registerPlugin(
        Spectrogram.create({ height: 128, frequencyMax: this.player.rate / 2, scale: "mel", fftSamples: 1024, colorMap: "roseus" }),
      );
    } else if (!hasPitches && this.spectrogram) {
      this.waves.unregisterPlugin(this.spectrogram);
      this.spectrogram = null;
    }
    const channel = hasPitches ? Float32Array.from(this.samples, (sample) => sample / 32768) : this.peaks;
    this.waves.load("", [channel], this.seconds || 1).catch(() => {}); // another piece came between
    this.drawnAt = performance.now();
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
