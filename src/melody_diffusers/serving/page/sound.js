// Sound files: their samples, and the plan that they hold.

// {samples: Int16Array, plan: object or null} of a file; what is not plain 16-bit WAV at this rate, the browser decodes.
export async function decode(blob, context) {
  const bytes = await blob.arrayBuffer();
  const wav = readWav(new DataView(bytes));
  if (wav?.samples && wav.rate === context.sampleRate) return { samples: wav.samples, plan: wav.plan };
  const buffer = await context.decodeAudioData(bytes);
  const samples = new Int16Array(buffer.length);
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, i) => buffer.getChannelData(i));
  for (let i = 0; i < samples.length; i++) {
    const mean = channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
    samples[i] = Math.max(-32768, Math.min(32767, Math.round(mean * 32768)));
  }
  return { samples, plan: wav?.plan ?? null };
}

function readWav(view) {
  const name = (at) => String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
  if (view.byteLength < 44 || name(0) !== "RIFF") return null;
  const found = { rate: 0, samples: null, plan: null };
  let isPlain = false;
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const size = Math.min(view.getUint32(at + 4, true), view.byteLength - at - 8);
    if (name(at) === "fmt ") {
      found.rate = view.getUint32(at + 12, true);
      isPlain = view.getUint16(at + 10, true) === 1 && view.getUint16(at + 22, true) === 16; // mono, 16 bits
    } else if (name(at) === "data" && isPlain) {
      found.samples = new Int16Array(view.buffer.slice(at + 8, at + 8 + (size & ~1)));
    } else if (name(at) === "LIST") {
      found.plan = planOf(new TextDecoder().decode(new Uint8Array(view.buffer, at + 8, size))) ?? found.plan;
    }
    at += 8 + size + (size & 1);
  }
  return found;
}

// The plan is the last line of the file's comment.
function planOf(text) {
  const start = text.indexOf('\n{"');
  if (start < 0) return null;
  try {
    return JSON.parse(text.slice(start + 1, text.indexOf("\0", start) < 0 ? undefined : text.indexOf("\0", start)));
  } catch {
    return null;
  }
}

// A WAV of 16-bit samples, mono.
export function wavOf(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  [1, 1].forEach((value, i) => view.setUint16(20 + 2 * i, value, true));
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  [2, 16].forEach((value, i) => view.setUint16(32 + 2 * i, value, true));
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  new Int16Array(view.buffer, 44).set(samples);
  return new Blob([view], { type: "audio/wav" });
}

export function joined(parts) {
  const whole = new Int16Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
