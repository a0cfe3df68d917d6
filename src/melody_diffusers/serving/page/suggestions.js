// Words that the model knows, to press instead of to guess. What is pressed is written behind what was typed.

const GROUPS = ["examples", "styles", "leads", "moods"];

export class Suggestions {
  constructor(area, prompt, known) {
    this.prompt = prompt;
    this.typed = prompt.value;
    this.pressed = {}; // group -> its pressed word
    this.buttons = [];
    prompt.addEventListener("input", () => this.#forget());
    for (const group of GROUPS) this.#addGroup(area.querySelector(`[data-group="${group}"]`), group, known[group] ?? []);
    this.#addFields(known);
    area.hidden = !known.styles?.length;
  }

  #addGroup(row, group, words) {
    row.hidden = words.length === 0;
    const chips = document.createElement("div");
    chips.className = "chips";
    chips.setAttribute("role", "group");
    chips.setAttribute("aria-labelledby", `${group}-label`);
    for (const word of words) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: word });
      if (group === "examples") button.onclick = () => this.#write(word);
      else {
        button.setAttribute("aria-pressed", "false");
        button.onclick = () => this.#press(group, this.pressed[group] === word ? null : word);
        this.buttons.push({ group, word, button });
      }
      chips.append(button);
    }
    row.append(chips);
  }

  #addFields({ tempo_bpm, keys = [], modes = [] }) {
    const [tempo, key, mode] = ["tempo", "key", "mode"].map((id) => document.getElementById(id));
    if (tempo_bpm) [tempo.min, tempo.max] = tempo_bpm;
    key.append(...keys.map((name) => new Option(name)));
    mode.append(...modes.map((name) => new Option(name)));
    tempo.oninput = () => this.#press("tempo", tempo.value && tempo.checkValidity() ? `${tempo.value} bpm` : null);
    key.onchange = mode.onchange = () => this.#press("key", key.value ? `in ${key.value} ${mode.value}` : null);
    this.fields = [tempo, key];
  }

  #press(group, word) {
    this.pressed[group] = word;
    const { moods, styles, leads, tempo, key } = this.pressed;
    const about = [moods, styles].filter(Boolean).join(" ");
    const phrase = [leads ? `${about || "music"} with ${leads}` : about, tempo, key].filter(Boolean).join(", ");
    this.prompt.value = [this.typed, phrase].filter(Boolean).join(", ");
    this.#show();
  }

  #write(text) {
    this.prompt.value = text;
    this.#forget();
    this.typed = ""; // an example gives way to what is pressed next
  }

  #forget() {
    this.typed = this.prompt.value.trim();
    this.pressed = {};
    for (const field of this.fields ?? []) field.value = "";
    this.#show();
  }

  #show() {
    for (const { group, word, button } of this.buttons) {
      button.setAttribute("aria-pressed", String(this.pressed[group] === word));
    }
  }
}
