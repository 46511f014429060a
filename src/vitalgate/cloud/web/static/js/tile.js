// One device's tile: who it is, how its data is protected, what it alarms about, its traces and its numbers.
import { h, mark, say } from "./dom.js";
import { arrange, orderWaves, titled } from "./numerics.js";
import { age, clockTime, shortTime } from "./words.js";

const PRIORITIES = ["info", "low", "medium", "high"];
const SIGNS = ["i", "!", "!!", "!!!"]; // alarm signs are told apart without colour
const DRY_AFTER = 2.5; // seconds without samples after which a trace says so

class Slot {
  constructor(slot) {
    this.label = h("span", { class: "slot-label" });
    this.unit = h("span", { class: "slot-unit" });
    this.value = h("span", { class: "slot-value" });
    this.minor = h("span", { class: "slot-minor" });
    this.note = h("span", { class: "slot-note" });
    this.element = h(
      "div",
      { class: "slot", role: "group", "data-group": slot.group, "data-key": slot.id },
      h("span", { class: "slot-head" }, this.label, this.unit),
      h("span", { class: "slot-body" }, this.value, this.minor),
      this.note,
    );
  }

  update(slot) {
    say(this.label, slot.label);
    say(this.unit, slot.unit);
    say(this.value, slot.value);
    say(this.minor, slot.minor);
    const telling = slot.words.filter((word) => word !== "no reading");
    const notes = slot.void ? telling.slice(0, 1) : telling;
    if (slot.old) notes.push(`since ${shortTime(slot.time)}`);
    else if (slot.spot && slot.primary && !slot.void) notes.push(`at ${shortTime(slot.time)}`);
    say(this.note, notes.join(", "));
    mark(this.element, "data-alarm", slot.alarm ? PRIORITIES[slot.alarm.priority] : null);
    mark(this.element, "data-doubtful", slot.doubtful && "");
    mark(this.element, "data-old", slot.old && "");
    mark(this.element, "data-void", slot.void && !slot.alarm?.priority && "");
    mark(this.element, "data-long", slot.value.length > 5 ? "" : null);
    const value = slot.void ? "no reading" : slot.value;
    mark(this.element, "aria-label", [slot.label, value, slot.minor, slot.unit, ...notes].filter(Boolean).join(" "));
  }
}

export class Tile {
  #screen;
  #slots = new Map();
  #traces = [];
  #shape = "";

  constructor(device, screen, protection) {
    this.#screen = screen;
    this.protection = protection;
    const id = `tile-${Math.random().toString(36).slice(2)}`;
    this.name = h("a", { class: "tile-name", id });
    this.place = h("span", { class: "tile-place" });
    this.security = h("span", { class: "chip security" });
    this.heard = h("span", { class: "tile-heard" });
    this.marks = h("ul", { class: "tile-marks", "aria-label": "Marks" });
    this.alarms = h("ul", { class: "tile-alarms", "aria-label": "Alarms reported by the device", "aria-live": "polite" });
    this.body = h("div", { class: "tile-body" });
    this.element = h(
      "article",
      { class: "tile", "aria-labelledby": id, "data-device": device.device },
      h("header", { class: "tile-head" }, h("h2", {}, this.name), this.place, this.security, this.heard),
      this.alarms,
      this.body,
      this.marks,
    );
  }

  /** Show the device as it is at server time `now`. */
  update(device, now, linked) {
    const name = device.label || device.device;
    say(this.name, name);
    mark(this.name, "href", `/devices/${encodeURIComponent(device.device)}`);
    mark(this.name, "title", device.device);
    say(this.place, [device.patient, device.location].filter(Boolean).join(" · "));
    const protection = this.protection(device.security);
    say(this.security, protection.name);
    mark(this.security, "data-level", protection.level);
    mark(this.security, "title", `${device.security || "none stated"}: ${protection.words}`);
    mark(this.security, "aria-label", `Link security: ${protection.name}. ${protection.words}`);
    const silent = now - device.last_heard;
    say(this.heard, linked && silent < 2 ? "live" : `${age(silent)} ago`);
    mark(this.heard, "title", `Last heard ${clockTime(device.last_heard)}`);
    this.#showMarks(device, now, linked);
    this.#showAlarms(device);
    this.#showBody(device, now);
  }

  dispose() {
    this.#clearTraces();
    this.element.remove();
  }

  #showMarks(device, now, linked) {
    const on = new Set(device.marks);
    const said = [];
    if (on.has("lost")) said.push(["lost", `Link to gateway lost, last data ${clockTime(device.last_heard)}`]);
    if (on.has("stale")) {
      const since = device.last_time ?? device.last_heard;
      said.push(["stale", `Stale: no new data for ${age(now - since)}`]);
    }
    if (!linked) said.push(["offline", "Not live: this page has lost the server"]);
    if (on.has("gap")) said.push(["gap", "Gap: data is missing, see Gaps"]);
    if (on.has("demo")) said.push(["demo", "Demo data, not a patient"]);
    if (on.has("test")) said.push(["test", "Test data, not a patient"]);
    const shape = said.map((pair) => pair.join()).join("|");
    if (this.marks.dataset.shape !== shape) {
      this.marks.dataset.shape = shape;
      this.marks.replaceChildren(...said.map(([kind, words]) => h("li", { "data-mark": kind }, words)));
    }
    mark(this.element, "data-stale", on.has("stale") || on.has("lost") || !linked ? "" : null);
  }

  #showAlarms(device) {
    const alarms = [...device.alarms].sort((a, b) => b.priority - a.priority || b.time - a.time);
    const shape = alarms.map((alarm) => `${alarm.priority}${alarm.text}`).join("|");
    if (this.alarms.dataset.shape === shape) return;
    this.alarms.dataset.shape = shape;
    mark(this.alarms, "aria-live", alarms[0]?.priority === 3 ? "assertive" : "polite");
    this.alarms.replaceChildren(
      ...alarms.map((alarm) =>
        h(
          "li",
          { "data-alarm": PRIORITIES[alarm.priority] },
          h("span", { class: "alarm-sign", "aria-label": `${PRIORITIES[alarm.priority]} priority` }, SIGNS[alarm.priority]),
          h("span", { class: "alarm-text" }, alarm.text),
        ),
      ),
    );
    mark(this.element, "data-alarm", alarms.length ? PRIORITIES[alarms[0].priority] : null);
  }

  #showBody(device, now) {
    const slots = arrange(device, now);
    const waves = orderWaves(device);
    const shape = JSON.stringify([waves.map((wave) => [wave.key, wave.rate]), slots.map((slot) => [slot.id, slot.primary, slot.void])]);
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#build(slots, waves);
    }
    for (const slot of slots) this.#slots.get(slot.id).update(slot);
    for (const { wave, silent, scale, strip } of this.#traces) {
      say(scale, [strip.range, `${strip.speed} mm/s`].filter(Boolean).join("  "));
      const dry = wave.playout.dry;
      const words = dry > Math.max(DRY_AFTER, wave.playout.delay) ? `no signal for ${age(dry)}` : "";
      say(silent, words);
      mark(silent.parentElement, "data-dry", words ? "" : null);
    }
  }

  #clearTraces() {
    for (const { box } of this.#traces) this.#screen.remove(box);
    this.#traces = [];
  }

  #build(slots, waves) {
    this.#clearTraces();
    this.#slots.clear();
    const left = new Map(slots.map((slot) => [slot.id, slot]));
    const rows = [];
    const readout = (elements, more = {}) => h("div", { class: "readout", ...more }, h("div", { class: "slots" }, ...elements));
    const takeGroup = (group) => {
      const elements = [];
      for (const slot of [...left.values()].filter((candidate) => candidate.group === group)) {
        left.delete(slot.id);
        elements.push(this.#slot(slot));
      }
      return elements;
    };
    for (const wave of waves) {
      const canvas = h("canvas", { role: "img", "aria-label": `${titled(wave, wave.short)} waveform` });
      const scale = h("span", { class: "trace-scale" });
      const caption = h("span", { class: "trace-caption", "aria-hidden": "true" }, titled(wave, wave.short), scale);
      const silent = h("span", { class: "trace-silent" });
      const box = h("div", { class: "trace", "data-key": wave.key }, canvas, caption, silent);
      rows.push(h("div", { class: "channel", "data-group": wave.group }, box, readout(takeGroup(wave.group))));
      this.#traces.push({ wave, box, canvas, silent, scale });
    }
    if (left.size > 0) {
      const groups = [...new Set([...left.values()].map((slot) => slot.group))];
      const strip = groups.map((group) => {
        const empty = slots.every((slot) => slot.group !== group || slot.void);
        return readout(takeGroup(group), { "data-group": group, "data-void": empty && "" });
      });
      rows.push(h("div", { class: "numbers" }, ...strip));
    }
    this.body.replaceChildren(...rows);
    mark(this.body, "data-traces", waves.length ? String(Math.min(waves.length, 5)) : "0");
    for (const trace of this.#traces) trace.strip = this.#screen.add(trace.box, trace.canvas, trace.wave);
  }

  #slot(slot) {
    const made = new Slot(slot);
    mark(made.element, "data-lead", slot.primary ? "" : null);
    mark(made.element, "data-wide", slot.wide ? "" : null);
    this.#slots.set(slot.id, made);
    return made.element;
  }
}
