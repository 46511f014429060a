// The buffer between a bursty network and an even sweep: samples arrive in lumps, and leave at their own rate.

const FIRST_DELAY = 1.2; // seconds of buffer before anything is known about how bursty arrival is
const LEAST_DELAY = 0.35;
const MOST_DELAY = 8;
const SPEED_BAND = 0.12; // how much faster or slower than real time a trace may run to reach its delay
const JUMP_BEYOND = 3; // seconds over the wanted delay at which catching up gives way to a jump
const BREAK_SECONDS = 0.15; // the blank drawn where the trace jumped

/** A queue of samples of one waveform. `null` in it is a stretch without signal. Times are seconds. */
export class Playout {
  #queue = [];
  #first = 0; // number of queue[0], counted from the first sample taken in
  #told = 0; // number of the first sample that news() has not given out
  #head = 0; // samples already given out, with a fraction
  #end = null; // board index after the newest sample
  #arrived = null;
  #burst = FIRST_DELAY;
  #dry = 0;
  missed = 0;

  constructor(rate) {
    this.rate = rate;
  }

  /** Seconds of signal that wait to be drawn. */
  get level() {
    return Math.max(0, (this.#queue.length - this.#head) / this.rate);
  }

  /** Seconds for which there has been nothing to draw. */
  get dry() {
    return this.#dry;
  }

  /** The delay the buffer steers to: what the lumps of late need, and a little. */
  get delay() {
    return Math.min(MOST_DELAY, Math.max(LEAST_DELAY, this.#burst * 1.2 + 0.15));
  }

  /** Take samples whose first has the board's number `index`, arrived at `now`. */
  push(index, samples, now) {
    if (this.#end !== null && index + samples.length < this.#end) this.#restart();
    if (this.#end === null) {
      this.#queue = samples.slice();
      this.#head = Math.max(0, samples.length - this.delay * this.rate);
      this.#end = index + samples.length;
      this.#arrived = now;
      return;
    }
    if (index > this.#end) {
      const hole = Math.min(index - this.#end, Math.round(this.rate * 2));
      this.missed += index - this.#end;
      for (let i = 0; i < hole; i += 1) this.#queue.push(null);
    } else if (index < this.#end) {
      samples = samples.slice(this.#end - index);
    }
    if (samples.length === 0) return;
    for (const sample of samples) this.#queue.push(sample);
    this.#end = Math.max(this.#end, index) + samples.length;
    const lump = Math.min(MOST_DELAY, now - this.#arrived);
    this.#burst = lump > this.#burst ? lump : this.#burst + (lump - this.#burst) * 0.03;
    this.#arrived = now;
  }

  /** What a freshly opened screen shows at once: up to `seconds` of what came before the playing point. */
  history(seconds) {
    const to = Math.floor(this.#head);
    return this.#queue.slice(Math.max(0, to - Math.round(seconds * this.rate)), to);
  }

  /** What arrived since the last call, before it is due: a scale chosen from it never clips what is drawn later. */
  news() {
    const fresh = this.#queue.slice(Math.max(0, this.#told - this.#first));
    this.#told = this.#first + this.#queue.length;
    return fresh;
  }

  /** The samples due after `elapsed` seconds more, oldest first; empty when the buffer has run dry. */
  take(elapsed) {
    const waiting = this.#queue.length - this.#head;
    if (waiting < 1) {
      this.#dry += elapsed;
      return [];
    }
    if (this.#dry > 0 && this.level < Math.min(this.delay, 1) && this.#dry < this.delay) {
      this.#dry += elapsed; // refill before going on, so that the trace does not stutter
      return [];
    }
    this.#dry = 0;
    const surplus = this.level - this.delay;
    const out = [];
    if (surplus > JUMP_BEYOND) {
      this.#head = this.#queue.length - this.delay * this.rate;
      for (let i = 0; i < this.rate * BREAK_SECONDS; i += 1) out.push(null);
    }
    const speed = 1 + Math.max(-SPEED_BAND, Math.min(SPEED_BAND, surplus * 0.1));
    const from = Math.floor(this.#head);
    this.#head = Math.min(this.#queue.length, this.#head + Math.min(elapsed, 1) * this.rate * speed);
    const to = Math.floor(this.#head);
    for (let i = from; i < to; i += 1) out.push(this.#queue[i]);
    this.#trim();
    return out;
  }

  #trim() {
    const keep = Math.round(this.rate * 12);
    const surplus = Math.floor(this.#head) - keep;
    if (surplus > keep) {
      this.#queue.splice(0, surplus);
      this.#first += surplus;
      this.#head -= surplus;
    }
  }

  #restart() {
    this.#first += this.#queue.length;
    this.#queue = [];
    this.#head = 0;
    this.#end = null;
  }
}
