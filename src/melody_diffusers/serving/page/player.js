// What is heard: one AudioWorklet, which plays pieces that are there and pieces that are still being made.
// It looks like a media element, so that wavesurfer shows where it is.

export class Player extends EventTarget {
  constructor(rate) {
    super();
    this.rate = rate;
    this.context = this.node = this.ready = null;
    this.position = this.end = this.epoch = this.played = 0;
    this.duration = 0; // seconds of the piece, also of what is not there yet
    this.isPlaying = this.isWaiting = false;
    Object.assign(this, { volume: 1, muted: false, playbackRate: 1, seeking: false, readyState: 4, src: "", currentSrc: "" });
  }

  // To be called from a press of a button: browsers allow sound only then.
  open() {
    if (!this.ready) {
      if (!isSecureContext) throw new Error("Browsers play such music only over https, or on the machine that makes it.");
      this.context = new AudioContext({ sampleRate: this.rate });
      this.ready = this.context.audioWorklet.addModule("player-worklet.js").then(() => {
        this.node = new AudioWorkletNode(this.context, "melody-player", { numberOfInputs: 0, outputChannelCount: [1] });
        this.node.port.onmessage = ({ data }) => this.#hear(data);
        this.node.connect(this.context.destination);
      });
    }
    this.context.resume();
    return this.ready;
  }

  // A piece that will come part by part. `lead` is how many seconds must lie ready before it is heard.
  begin(duration, { lead = 0.2, isLive = false } = {}) {
    this.duration = duration;
    this.position = this.end = 0;
    this.#tell("begin", { epoch: ++this.epoch, lead: Math.round(lead * this.rate), isLive });
    this.#emit("durationchange");
  }

  push(samples) {
    this.end += samples.length;
    this.#tell("push", { samples });
  }

  complete() {
    this.#tell("complete");
  }

  // After it ran dry: how many seconds must lie ready before it goes on.
  wait(seconds) {
    this.#tell("setLead", { lead: Math.round(seconds * this.rate) });
  }

  // A piece that is there.
  load(samples, seconds = 0) {
    this.begin(samples.length / this.rate);
    this.push(samples);
    this.complete();
    this.currentTime = seconds;
  }

  play() {
    this.#tell("play");
    this.isPlaying = true;
    this.#emit("play");
  }

  pause() {
    this.#tell("pause");
    this.#halt();
  }

  // Silent at once; what was loaded is forgotten.
  clear() {
    this.begin(0);
    this.#halt();
  }

  repeat(range) {
    this.#tell("setRepeat", { repeat: range && range.map((seconds) => Math.round(seconds * this.rate)) });
  }

  get currentTime() {
    return this.position / this.rate;
  }

  set currentTime(seconds) {
    this.position = Math.max(0, Math.min(Math.round(seconds * this.rate), this.end));
    this.#tell("seek", { position: this.position });
    this.#emit("timeupdate");
  }

  get paused() {
    return !this.isPlaying;
  }

  get ended() {
    return !this.isPlaying && this.position >= this.end;
  }

  // The rest of what wavesurfer asks of a media element.
  removeAttribute() {}
  canPlayType() {
    return "";
  }

  #halt() {
    if (!this.isPlaying) return;
    this.isPlaying = false;
    this.#emit("pause");
  }

  #tell(what, rest = {}) {
    this.node?.port.postMessage({ do: what, ...rest });
  }

  #emit(name) {
    this.dispatchEvent(new Event(name));
  }

  #hear({ epoch, position, played, isPlaying, isWaiting }) {
    this.played = played;
    if (epoch !== this.epoch) return; // of a piece before
    this.position = position;
    this.isWaiting = isWaiting;
    if (this.isPlaying) this.#emit("timeupdate");
    if (this.isPlaying && !isPlaying && position >= this.end && this.end > 0) {
      this.isPlaying = false;
      this.#emit("pause");
      this.#emit("ended");
    }
  }
}
