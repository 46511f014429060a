// One waveform strip: a canvas swept from left to right, with an erase bar before the newest point.

import { unit } from "./words.js";

const PIXELS_PER_MM = 96 / 25.4; // CSS pixels
const ERASE = 14; // width of the erase bar, CSS pixels
const OUTWARDS = 0.15; // how much further than seen a scale opens when the signal leaves it
const EDGE = 0.12; // share of the height kept free above and below
const CAPTION = 14; // CSS pixels over the trace that its name takes
const TALLEST = 240; // CSS pixels that a trace takes at most, however tall its strip

/* Millimetres a second, as bedside monitors have them: breathing is slow and is swept slowly. */
const SPEEDS = { resp: 6.25, co2: 6.25 };
const USUAL_SPEED = 25;

const LEAST_SPAN = { ecg: 1.2, ibp: 40, resp: 1e-6, spo2: 1e-6, co2: 10, other: 1e-6 };

/** How values lie on the height of the strip: follows the signal, at once outwards, slowly inwards. */
class Scale {
  #recent = [];
  #since = 0;
  low = null;
  high = null;

  constructor(group, rate) {
    this.least = LEAST_SPAN[group] ?? LEAST_SPAN.other;
    this.stepped = group === "ibp";
    this.rate = rate;
    this.span = Math.max(2, Math.round(rate * (SPEEDS[group] ? 14 : 5)));
    this.stride = Math.max(1, Math.floor(this.span / 1500)); // dense signals are looked at through a sieve
    this.count = 0;
  }

  see(value) {
    if (value === null) return;
    this.count += 1;
    if (this.count % this.stride === 0) {
      this.#recent.push(value);
      if (this.#recent.length > this.span / this.stride) this.#recent.shift();
    }
    this.#since += 1;
    if (this.low === null || value < this.low || value > this.high) {
      this.#aim([...this.#recent, value], OUTWARDS);
    } else if (this.#since > this.span) {
      this.#aim(this.#recent, 0);
    }
  }

  #aim(values, ahead) {
    this.#since = 0;
    if (values.length === 0) return;
    let low = values.reduce((least, value) => Math.min(least, value));
    let high = values.reduce((most, value) => Math.max(most, value));
    if (this.stepped) {
      low = Math.floor((low - 5) / 20) * 20;
      high = Math.max(low + 60, Math.ceil((high + 5) / 20) * 20);
    } else {
      const span = Math.max(this.least, high - low) * (1.1 + ahead);
      [low, high] = [(low + high - span) / 2, (low + high + span) / 2];
    }
    const fits = this.low !== null && low >= this.low && high <= this.high && high - low > (this.high - this.low) * 0.6;
    if (!fits) [this.low, this.high] = [low, high];
  }
}

export class Sweep {
  #canvas;
  #context;
  #ratio = 1;
  #width = 0;
  #height = 0;
  #x = 0;
  #pen = null; // last point drawn, or null after a break
  #fresh = true;
  drawn = 0;

  constructor(canvas, wave) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    this.wave = wave;
    this.scale = new Scale(wave.group, wave.rate);
    this.speed = SPEEDS[wave.group] ?? USUAL_SPEED;
    this.pixelsPerSample = (this.speed * PIXELS_PER_MM) / wave.rate;
    this.colour = getComputedStyle(canvas).color;
  }

  /** The height of the strip in numbers, where people read it so: pressures and gases. */
  get range() {
    if (this.scale.low === null || !["ibp", "co2"].includes(this.wave.group)) return "";
    return `${Math.round(this.scale.low)}–${Math.round(this.scale.high)} ${unit(this.wave.unit)}`;
  }

  /** Fit the canvas to its box and the screen's pixels; the trace starts anew with what came just before. */
  resize(width, height) {
    const ratio = window.devicePixelRatio || 1;
    if (width === this.#width && height === this.#height && ratio === this.#ratio) return;
    this.#width = width;
    this.#height = height;
    this.#ratio = ratio;
    this.#canvas.width = Math.max(1, Math.round(width * ratio));
    this.#canvas.height = Math.max(1, Math.round(height * ratio));
    this.#context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.#context.lineWidth = 1.6;
    this.#context.lineJoin = "round";
    this.#context.lineCap = "round";
    this.#fresh = true;
  }

  /** Draw what is due after `elapsed` seconds. */
  advance(elapsed) {
    if (this.#width < 8 || this.#height < 8) {
      this.wave.playout.take(elapsed);
      return;
    }
    for (const value of this.wave.playout.news()) this.scale.see(value);
    if (this.#fresh) this.#begin();
    const samples = this.wave.playout.take(elapsed);
    if (samples.length > 0) this.#draw(samples);
  }

  #begin() {
    this.#fresh = false;
    this.#context.clearRect(0, 0, this.#width, this.#height);
    this.#pen = null;
    this.#x = 0;
    const seconds = ((this.#width - ERASE) / (this.pixelsPerSample * this.wave.rate)) * 0.98;
    const before = this.wave.playout.history(seconds);
    this.#draw(before);
  }

  #level(value) {
    const { low, high } = this.scale;
    const share = high > low ? (value - low) / (high - low) : 0.5;
    const above = Math.max(this.#height * EDGE, Math.min(CAPTION, this.#height / 4));
    const free = this.#height * (1 - EDGE) - above;
    const room = Math.min(TALLEST, free);
    return above + (free - room) / 2 + room * (1 - Math.min(1.08, Math.max(-0.08, share)));
  }

  #erase(from, to) {
    this.#context.clearRect(from, 0, to - from, this.#height);
    if (to > this.#width) this.#context.clearRect(0, 0, to - this.#width, this.#height);
  }

  #draw(samples) {
    const context = this.#context;
    const step = this.pixelsPerSample;
    const start = this.#x;
    this.#erase(start + 1, start + 1 + samples.length * step + ERASE);
    context.strokeStyle = this.colour;
    context.beginPath();
    if (this.#pen) context.moveTo(this.#pen[0], this.#pen[1]);
    for (const value of samples) {
      this.#x += step;
      if (this.#x >= this.#width) {
        this.#x -= this.#width;
        this.#pen = null;
        context.stroke();
        this.#erase(0, this.#x + ERASE);
        context.beginPath();
      }
      if (value === null) {
        this.#pen = null;
      } else {
        const y = this.#level(value);
        if (this.#pen) context.lineTo(this.#x, y);
        else context.moveTo(this.#x, y);
        this.#pen = [this.#x, y];
      }
    }
    context.stroke();
    this.drawn += samples.length;
  }
}

/** Turns every strip on the page from one animation frame; people who ask for less motion get two steps a second. */
export class Screen {
  #strips = new Map();
  #last = null;
  #observer = new ResizeObserver((entries) => {
    for (const entry of entries) this.#strips.get(entry.target)?.resize(entry.contentRect.width, entry.contentRect.height);
  });
  #calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  stopped = false;

  constructor() {
    requestAnimationFrame((at) => this.#turn(at));
  }

  /** Show `wave` in `box`, an element that holds the canvas. */
  add(box, canvas, wave) {
    const strip = new Sweep(canvas, wave);
    this.#strips.set(box, strip);
    this.#observer.observe(box);
    return strip;
  }

  remove(box) {
    this.#observer.unobserve(box);
    this.#strips.delete(box);
  }

  #turn(at) {
    requestAnimationFrame((next) => this.#turn(next));
    if (this.#last === null) this.#last = at;
    const elapsed = (at - this.#last) / 1000;
    if (this.#calm.matches && elapsed < 0.5) return;
    this.#last = at;
    if (this.stopped) return;
    for (const strip of this.#strips.values()) strip.advance(elapsed);
  }
}
