// The dashboard: the event stream feeds the model, the model feeds the tiles.
import { h, mark, say } from "./dom.js";
import { Model } from "./model.js";
import { Stream } from "./stream.js";
import { Screen } from "./sweep.js";
import { Tile } from "./tile.js";
import { clockTime, protections } from "./words.js";

const board = document.getElementById("board");
const banner = document.getElementById("lost");
const unprotected = document.getElementById("unprotected");
const status = document.getElementById("link-state");
const clock = document.getElementById("clock");
const empty = document.getElementById("empty");
const tallies = { quarantine: document.getElementById("count-quarantine"), gaps: document.getElementById("count-gaps") };

const model = new Model();
const screen = new Screen();
const protection = protections(document);
const tiles = new Map();
let linked = false;
let lostAt = null;

const byName = (a, b) => (a.label || a.device).localeCompare(b.label || b.device, undefined, { numeric: true });

function arrangeTiles() {
  for (const [urn, tile] of tiles) {
    if (!model.devices.has(urn)) {
      tile.dispose();
      tiles.delete(urn);
    }
  }
  const order = [...model.devices.values()].sort(byName);
  for (const device of order) {
    if (!tiles.has(device.device)) tiles.set(device.device, new Tile(device, screen, protection));
  }
  const elements = order.map((device) => tiles.get(device.device).element);
  if (elements.some((element, at) => board.children[at] !== element)) board.replaceChildren(...elements);
  const count = order.length;
  mark(board, "data-count", count > 6 ? "many" : String(count));
  empty.hidden = count > 0 || model.version === null;
}

function showPage() {
  const now = model.clock.now();
  say(clock, model.version === null ? "" : clockTime(now));
  for (const [urn, tile] of tiles) tile.update(model.devices.get(urn), now, linked);
  const open = [...model.devices.values()].filter((device) => protection(device.security).level !== "protected");
  unprotected.hidden = open.length === 0;
  if (open.length > 0) {
    const who = open.length === 1 ? "1 device" : `${open.length} devices`;
    say(unprotected, `UNPROTECTED: data of ${who} crosses the network without encryption. Anyone on the way can read and change it.`);
  }
  tally(tallies.quarantine, model.quarantine.length);
  tally(tallies.gaps, model.gaps.length);
  if (!banner.hidden && lostAt !== null) say(document.getElementById("lost-since"), clockTime(lostAt));
}

function tally(element, count) {
  if (!element) return;
  say(element, count > 0 ? String(count) : "");
  element.hidden = count === 0;
}

function onMessage(message, arrival) {
  const changed = model.apply(message, arrival);
  if ([...changed].some((urn) => tiles.has(urn) !== model.devices.has(urn)) || message.full) arrangeTiles();
  else if ([...changed].some((urn) => tiles.get(urn)?.name.textContent !== (model.devices.get(urn).label || urn))) arrangeTiles();
  const now = model.clock.now();
  for (const urn of changed) {
    if (model.devices.has(urn)) tiles.get(urn).update(model.devices.get(urn), now, linked);
  }
}

function onState(state, words) {
  const was = linked;
  linked = state === "live";
  if (!linked && (was || lostAt === null)) lostAt = model.version === null ? null : model.clock.now();
  if (linked) lostAt = null;
  banner.hidden = linked;
  if (!linked) {
    say(document.getElementById("lost-words"), words);
    say(document.getElementById("lost-since"), lostAt === null ? "never" : clockTime(lostAt));
  }
  mark(document.body, "data-link", state);
  say(status, linked ? "Live" : "Connection lost");
  if (was !== linked) showPage();
}

board.append(h("p", { class: "waiting" }, "Waiting for the server"));
new Stream("/events", onMessage, onState);
setInterval(showPage, 500);
