// The event stream: one EventSource, watched, so that a dead one is noticed and said aloud.

const SILENCE = 5000; // ms without a message (the server speaks every second) after which the stream counts as dead
const FIRST_RETRY = 1000;
const LAST_RETRY = 15000;

/**
 * Calls `onMessage(data, arrivalMs)` for each board message, `onState(state, words)` when the stream is "live" or
 * "lost". Resumes after the last version it has seen.
 */
export class Stream {
  #source = null;
  #heard = 0;
  #version = null;
  #retry = FIRST_RETRY;
  #again = null;
  state = "connecting";

  constructor(url, onMessage, onState) {
    this.url = url;
    this.onMessage = onMessage;
    this.onState = onState;
    setInterval(() => this.#watch(), 500);
    window.addEventListener("online", () => this.#open());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.state === "lost") this.#open();
    });
    this.#heard = performance.now();
    this.#open();
  }

  #open() {
    clearTimeout(this.#again);
    this.#source?.close();
    const source = new EventSource(this.#version === null ? this.url : `${this.url}?since=${this.#version}`);
    this.#source = source;
    source.addEventListener("board", (event) => {
      if (source !== this.#source) return;
      const arrival = performance.now();
      this.#heard = arrival;
      this.#retry = FIRST_RETRY;
      const data = JSON.parse(event.data);
      this.#version = data.version;
      this.onMessage(data, arrival);
      this.#say("live", "");
    });
    source.addEventListener("end", (event) => {
      if (source !== this.#source) return;
      const { reason } = JSON.parse(event.data);
      if (reason === "signed-out") window.location.assign("/sign-in");
      else this.#later("The server is stopping.");
    });
    source.addEventListener("error", () => {
      if (source === this.#source) this.#later("The connection to the server broke.");
    });
  }

  /** Try again by our own clock: EventSource gives up for good on an HTTP error. */
  #later(words) {
    this.#source?.close();
    this.#source = null;
    this.#say("lost", words);
    clearTimeout(this.#again);
    this.#again = setTimeout(() => this.#ask(), this.#retry * (0.8 + Math.random() * 0.4));
    this.#retry = Math.min(LAST_RETRY, this.#retry * 1.7);
  }

  /** Before opening anew, learn whether we may: a stream that is refused does not say why. */
  async #ask() {
    try {
      const answer = await fetch("/api/session", { cache: "no-store" });
      if (answer.status === 401) {
        window.location.assign("/sign-in");
        return;
      }
      if (answer.ok) {
        const session = await answer.json();
        if (session.streams_free) this.#open();
        else this.#later("Too many screens are open: close one.");
        return;
      }
      this.#later(`The server answers ${answer.status}.`);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      this.#later("The server cannot be reached.");
    }
  }

  #watch() {
    if (this.#source && performance.now() - this.#heard > SILENCE) {
      this.#heard = performance.now();
      this.#later("The server has gone silent.");
    }
  }

  #say(state, words) {
    this.state = state;
    this.onState(state, words);
  }
}
