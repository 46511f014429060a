// What the board says, kept up to date from the event stream. No DOM here.
import { Playout } from "./playout.js";

/** Seconds since 1970 by the server's clock, carried forward by the browser's monotonic one. */
export class ServerClock {
  #offset = null;

  set(serverSeconds, arrivalMs) {
    this.#offset = serverSeconds - arrivalMs / 1000;
  }

  now() {
    return this.#offset === null ? Date.now() / 1000 : this.#offset + performance.now() / 1000;
  }
}

/** The devices, gateways, gaps and quarantined devices; see the shape at the head of `cloud/live.py`. */
export class Model {
  devices = new Map();
  gateways = new Map();
  quarantine = [];
  gaps = [];
  version = null;
  clock = new ServerClock();

  /** Merge one message (whole or increment); returns the URNs of devices that changed. */
  apply(message, arrivalMs) {
    this.clock.set(message.time, arrivalMs);
    const changed = new Set();
    if (message.full) {
      const present = new Set(message.devices.map((device) => device.device));
      for (const urn of this.devices.keys()) {
        if (!present.has(urn)) {
          this.devices.delete(urn);
          changed.add(urn);
        }
      }
      this.gateways.clear();
    }
    for (const device of message.devices) {
      this.#merge(device, message.full, arrivalMs);
      changed.add(device.device);
    }
    for (const gateway of message.gateways) this.gateways.set(gateway.gateway, gateway);
    if (message.quarantine) this.quarantine = message.quarantine;
    if (message.gaps) this.gaps = message.gaps;
    this.version = message.version;
    return changed;
  }

  #merge(incoming, full, arrivalMs) {
    let device = this.devices.get(incoming.device);
    if (!device) {
      device = { numerics: new Map(), waves: new Map() };
      this.devices.set(incoming.device, device);
    }
    const { numerics, waves, ...plain } = incoming;
    Object.assign(device, plain);
    if (full) device.numerics = new Map();
    for (const numeric of numerics) device.numerics.set(numeric.key, numeric);
    const named = new Set(waves.map((wave) => wave.key));
    if (full) {
      for (const key of device.waves.keys()) if (!named.has(key)) device.waves.delete(key);
    }
    for (const { samples, index, ...about } of waves) {
      let wave = device.waves.get(about.key);
      if (!wave || wave.rate !== about.rate) {
        wave = { ...about, playout: new Playout(about.rate) };
        device.waves.set(about.key, wave);
      }
      Object.assign(wave, about);
      wave.playout.push(index, samples, arrivalMs / 1000);
    }
  }
}
