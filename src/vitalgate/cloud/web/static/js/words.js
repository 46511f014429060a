// Words and numbers as people read them.

const UNITS = { "/min": "/min", "mm[Hg]": "mmHg", Cel: "°C", "%": "%", 1: "", mV: "mV" };
const STATUS = {
  invalid: "invalid",
  questionable: "questionable",
  unavailable: "no reading",
  calibrating: "calibrating",
  early: "early value",
  alarm_inhibited: "alarm off",
  above_range: "above range",
  below_range: "below range",
  not_performed: "not measured",
  implausible: "implausible",
};

export const unit = (ucum) => UNITS[ucum] ?? ucum;
export const statusWords = (status) => status.filter((word) => word in STATUS).map((word) => STATUS[word]);

/** "8 s", "3 min", "2 h 5 min", "4 d". */
export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d`;
}

export const clockTime = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
export const shortTime = (seconds) =>
  new Date(seconds * 1000).toLocaleTimeString([], { hour12: false, hour: "2-digit", minute: "2-digit" });

/** The protections' names, words and levels, as the page was given them (one table, kept by the server). */
export function protections(root) {
  const table = new Map();
  for (const item of root.querySelectorAll("#protections > li")) {
    table.set(item.dataset.slug, { level: item.dataset.level, name: item.dataset.name, words: item.textContent.trim() });
  }
  return (slug) =>
    table.get(slug) ?? { level: "unknown", name: slug || "not stated", words: "Protection not known: treat it as none." };
}
