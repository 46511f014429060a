// Which numbers stand where: metrics of a device become channels in a monitor's usual order.
import { statusWords, unit } from "./words.js";

const ORDER = ["ecg", "spo2", "resp", "ibp", "nibp", "co2", "temp", "other"];
const PRESSURE = /^(.*)_(SYS|DIA|MEAN)$/;
const PRIMARY = { ecg: ["HR"], spo2: ["SpO2"], resp: ["RR"], co2: ["EtCO2"] };
const SPOT = new Set(["nibp", "temp"]); // measured now and then: their time is shown, their age is no fault

const place = (group) => {
  const at = ORDER.indexOf(group);
  return at < 0 ? ORDER.length : at;
};

// A channel that begins with the usual short name ("P1" for "P") says it all.
export const titled = ({ channel }, short) => (!channel ? short : channel.startsWith(short[0]) && channel.length <= 4 ? channel : `${short} ${channel}`);

const shown = (numeric) => (numeric ? numeric.value ?? numeric.text ?? "---" : "---");

function judge(parts, now, staleAfter) {
  const status = new Set(parts.flatMap((part) => part.status));
  const time = Math.max(...parts.map((part) => part.time));
  const alarm = parts.reduce((worst, part) => (part.alarm && (!worst || part.alarm.priority > worst.priority) ? part.alarm : worst), null);
  const spot = SPOT.has(parts[0].group);
  return {
    group: ORDER.includes(parts[0].group) ? parts[0].group : "other",
    unit: unit(parts[0].unit),
    words: statusWords([...status]),
    doubtful: ["invalid", "questionable", "implausible"].some((word) => status.has(word)),
    void: parts.every((part) => part.value === null && part.text === null),
    alarm,
    time,
    spot,
    old: !spot && now - time > Math.max(staleAfter, 5),
  };
}

/** Slots of a device: `{id, group, label, name, value, minor, unit, words, alarm, time, spot, old, primary}`, in order. */
export function arrange(device, now) {
  const slots = [];
  const pressures = new Map();
  for (const numeric of device.numerics.values()) {
    const match = PRESSURE.exec(numeric.name ?? "");
    if (match) {
      const site = `${match[1]}:${numeric.channel ?? ""}`;
      const parts = pressures.get(site) ?? {};
      parts[match[2]] = numeric;
      pressures.set(site, parts);
      continue;
    }
    slots.push({
      id: numeric.key,
      label: titled(numeric, numeric.short),
      name: numeric.name || numeric.short,
      value: shown(numeric),
      minor: "",
      primary: (PRIMARY[numeric.group] ?? []).includes(numeric.short),
      ...judge([numeric], now, device.stale_after),
    });
  }
  for (const [name, parts] of pressures) {
    const present = [parts.SYS, parts.DIA, parts.MEAN].filter(Boolean);
    const pair = parts.SYS || parts.DIA;
    slots.push({
      id: name,
      label: titled(present[0], present[0].short.replace(/ (sys|dia|mean)$/, "")),
      name,
      value: pair ? `${shown(parts.SYS)}/${shown(parts.DIA)}` : shown(parts.MEAN),
      minor: pair && parts.MEAN ? `(${shown(parts.MEAN)})` : "",
      primary: true,
      wide: Boolean(pair),
      ...judge(present, now, device.stale_after),
    });
  }
  slots.sort((a, b) => place(a.group) - place(b.group) || b.primary - a.primary || a.label.localeCompare(b.label));
  const led = new Set(slots.filter((slot) => slot.primary).map((slot) => slot.group));
  for (const slot of slots) {
    if (!led.has(slot.group)) {
      slot.primary = true; // a group without its usual number is led by the first it has
      led.add(slot.group);
    }
  }
  return slots;
}

/** Waves in the same order. */
export function orderWaves(device) {
  return [...device.waves.values()].sort((a, b) => place(a.group) - place(b.group) || a.short.localeCompare(b.short));
}
