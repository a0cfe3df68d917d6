// The server, as docs/serving.md describes it.

export class Refusal extends Error {
  constructor(status, { code, argument, message } = {}) {
    super(message || `The server answered ${status}.`);
    Object.assign(this, { status, code, argument });
  }
}

let askForToken = async () => null;
export function onTokenWanted(ask) {
  askForToken = ask;
}

async function ask(path, { method = "GET", json, form, signal } = {}) {
  const headers = {};
  const token = sessionStorage.getItem("token");
  if (token) headers.authorization = `Bearer ${token}`;
  if (json) headers["content-type"] = "application/json";
  const response = await fetch(path, { method, headers, body: json ? JSON.stringify(json) : form, signal });
  if (response.ok) return response;
  const refusal = new Refusal(response.status, await response.json().catch(() => ({})));
  if (refusal.status !== 401) throw refusal;
  const given = await askForToken();
  if (given === null) throw refusal;
  sessionStorage.setItem("token", given);
  return ask(path, { method, json, form, signal });
}

export const words = async () => (await ask("v1/prompts")).json();
export const health = async () => (await ask("health")).json();
export const generate = (json, signal) => ask("v1/audio/generate", { method: "POST", json, signal });
export const change = (id, json) => ask(`v1/audio/streams/${id}`, { method: "POST", json });

export async function edit(audio, fields, signal) {
  const form = new FormData();
  form.append("audio", audio, "music.wav");
  for (const [name, value] of Object.entries(fields)) if (value !== null && value !== "") form.append(name, value);
  return ask("v1/audio/edits", { method: "POST", form, signal });
}

// The 16-bit samples of a stream, part by part.
export async function* samples(response) {
  let rest = new Uint8Array(0);
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const bytes = new Uint8Array(rest.length + value.length);
    bytes.set(rest);
    bytes.set(value, rest.length);
    const whole = bytes.length & ~1;
    rest = bytes.slice(whole);
    if (whole) yield new Int16Array(bytes.buffer, 0, whole / 2).slice();
  }
}
