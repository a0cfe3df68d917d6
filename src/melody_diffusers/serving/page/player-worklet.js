// Plays 16-bit samples as they come. Positions are samples from the beginning of the piece.

const REPORT_BLOCKS = 8; // of 128 samples, between two reports of where it is

class PlayerProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this.played = 0; // samples that were heard, of all pieces
    this.blocks = 0;
    this.tail = null; // the last 128 samples before a stop, faded out, for it must not click
    this.begin({ epoch: 0, lead: 0, isLive: false });
    this.port.onmessage = ({ data }) => this[data.do](data);
  }

  begin({ epoch, lead, isLive }) {
    this.fadeOut();
    this.epoch = epoch;
    this.lead = lead; // samples that must lie ready before it begins, or goes on after it ran dry
    this.isLive = isLive; // what was heard is forgotten
    this.chunks = []; // {start, samples}
    this.current = 0;
    this.position = this.end = 0;
    this.isPlaying = this.isComplete = false;
    this.isWaiting = true;
    this.repeat = null; // [from, to]
  }

  push({ samples }) {
    this.chunks.push({ start: this.end, samples });
    this.end += samples.length;
  }

  complete() {
    this.isComplete = true;
  }

  setLead({ lead }) {
    this.lead = lead;
  }

  play() {
    this.isPlaying = true;
  }

  pause() {
    this.fadeOut();
    this.isPlaying = false;
  }

  seek({ position }) {
    this.fadeOut();
    this.position = position;
    this.current = 0;
  }

  setRepeat({ repeat }) {
    this.repeat = repeat;
  }

  fadeOut() {
    if (!this.isPlaying || this.isWaiting) return;
    this.tail = new Float32Array(128);
    for (let i = 0; i < 128 && this.position < this.end; i++) this.tail[i] = this.take() * (1 - i / 128);
  }

  take() {
    while (this.position >= this.chunks[this.current].start + this.chunks[this.current].samples.length) this.current++;
    const { start, samples } = this.chunks[this.current];
    return samples[this.position++ - start] / 32768;
  }

  fill(out) {
    if (this.isWaiting) this.isWaiting = !this.isComplete && this.end - this.position < Math.max(this.lead, 1);
    if (this.isWaiting) return;
    for (let i = 0; i < out.length; i++) {
      if (this.repeat && this.position >= Math.min(this.repeat[1], this.isComplete ? this.end : Infinity)) {
        this.position = this.repeat[0];
        this.current = 0;
      }
      if (this.position >= this.end) {
        this.isWaiting = !this.isComplete;
        this.isPlaying = !this.isComplete;
        this.blocks = 0; // tell it at once
        return;
      }
      out[i] = this.take();
      this.played++;
    }
    if (this.isLive && this.current > 0) this.chunks.splice(0, this.current), (this.current = 0);
  }

  process(_, [[out]]) {
    if (this.isPlaying) this.fill(out);
    if (this.tail) {
      for (let i = 0; i < out.length; i++) out[i] += this.tail[i];
      this.tail = null;
    }
    if (this.blocks++ % REPORT_BLOCKS === 0) {
      const { epoch, position, played, isPlaying, isWaiting } = this;
      this.port.postMessage({ epoch, position, played, isPlaying, isWaiting });
    }
    return true;
  }
}

registerProcessor("melody-player", PlayerProcessor);
