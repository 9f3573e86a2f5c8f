"use strict";
// Requests /version repeatedly and draws which revision answered. The browser keeps its connection, but Cloud
// Run chooses a revision for each request, so the answers follow the traffic split. The page loads nothing else
// from the service, so it keeps working when its own revision is gone.

const PERIOD = 150; // milliseconds between two requests
const SLOWEST = 3000; // milliseconds between two requests while all fail
const PATIENCE = 5000; // milliseconds before a request counts as failed
const MOST_IN_FLIGHT = 4;
const WINDOW = 100; // requests that the percentages cover
const COLUMN = 8; // dots in a column
const COLUMNS = 64; // the most that fit the widest layout
const SLOTS = 9; // colors in live.css
const ROWS = 8; // revisions that the table keeps: fewer than colors, so that one is always free

const $ = (id) => document.getElementById(id);
const FAILED = { name: "Failed requests", commit: "", failed: true, total: 0, order: Infinity };
const revisions = new Map(); // name -> {name, commit, slot, total, order}
const latest = []; // the last WINDOW requests, oldest first: {who, at, took}
let paused = false;
let inFlight = 0;
let failuresInARow = 0;
let newestColumn = null;
let summarized = 0;

// A color depends only on the revision's name, so it is the same in every browser and after a reload. If two
// names get the same color, the later one takes the next free color.
function slotFor(name) {
  let hash = 2166136261;
  for (const character of name) hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  hash = Math.imul(hash ^ (hash >>> 15), 2246822507);
  const wanted = ((hash ^ (hash >>> 13)) >>> 0) % SLOTS;
  const taken = new Set([...revisions.values()].slice(-ROWS).map((revision) => revision.slot));
  let slot = wanted;
  while (taken.has(slot)) slot = (slot + 1) % SLOTS;
  return slot;
}

function known(name, commit) {
  if (!revisions.has(name)) {
    revisions.set(name, { name, commit, slot: slotFor(name), total: 0, order: revisions.size });
  }
  return revisions.get(name);
}

function paint(element, who) {
  element.classList.toggle("failed", Boolean(who.failed));
  if (!who.failed) element.dataset.slot = who.slot;
  return element;
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

async function ask() {
  const started = performance.now();
  let who = FAILED;
  inFlight++;
  try {
    const response = await fetch("/version", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    const answer = await response.json();
    if (response.ok && typeof answer.revision === "string") who = known(answer.revision, String(answer.commit));
  } catch {
    // No connection, no JSON, or no answer in time: to a user, each is a failed request.
  }
  inFlight--;
  failuresInARow = who.failed ? failuresInARow + 1 : 0;
  who.total++;
  latest.push({ who, at: performance.now(), took: performance.now() - started });
  if (latest.length > WINDOW) latest.shift();
  drawDot(latest.at(-1));
  draw();
}

function tick() {
  if (!paused && !document.hidden && inFlight < MOST_IN_FLIGHT) ask();
  setTimeout(tick, Math.min(PERIOD * 2 ** Math.min(failuresInARow, 10), SLOWEST));
}

// A column is sorted by revision, failures on top, so that a rollout reads like a rising tide.
function drawDot({ who, took }) {
  if (!newestColumn || newestColumn.children.length === COLUMN) {
    newestColumn = make("div", "column");
    $("stream").append(newestColumn);
    if ($("stream").children.length > COLUMNS) $("stream").firstChild.remove();
  }
  const dot = paint(make("i", "dot"), who);
  dot.who = who;
  dot.title = `${who.name}, ${Math.round(took)} ms`;
  newestColumn.insertBefore(dot, [...newestColumn.children].find((other) => other.who.order > who.order) ?? null);
}

function draw() {
  const counts = new Map();
  for (const { who } of latest) counts.set(who, (counts.get(who) ?? 0) + 1);
  const everyone = [...revisions.values(), FAILED].filter((who) => who.total > 0);
  const shown = everyone.map((who) => ({ who, count: counts.get(who) ?? 0, share: percent(counts.get(who) ?? 0) }));
  drawBar(shown);
  drawRows(shown);
  drawPace();
  if (performance.now() - summarized > 10000) {
    summarized = performance.now(); // a screen reader hears the split every ten seconds, not every answer
    $("summary").textContent = shown.filter(({ count }) => count).map(({ who, share }) => `${who.name}: ${share}`).join(", ");
  }
}

function percent(count) {
  return `${Math.round((100 * count) / latest.length)} %`;
}

// Segments and rows are updated, never recreated, so that a change of the split is animated and the text of a
// row can be selected while the numbers change.
function drawBar(shown) {
  for (const { who, count, share } of shown) {
    if (!who.segment) {
      who.segment = paint(make("div", "segment"), who);
      who.segment.append(make("div", ""));
      who.segment.firstChild.append(make("b", ""), make("small", "", who.name));
      place($("bar"), who, "segment", shown);
    }
    who.segment.style.flexGrow = count;
    who.segment.hidden = count === 0;
    who.segment.querySelector("b").textContent = share;
  }
}

function drawRows(shown) {
  for (const { who, count, share } of shown) {
    if (!who.row) {
      const name = make("td", who.failed ? "name failed" : "name", who.name);
      name.prepend(paint(make("i", "swatch"), who));
      who.row = make("tr", "");
      who.row.append(name, make("td", "commit", who.commit.slice(0, 12)), make("td", "number"), make("td", "number"));
      place($("rows"), who, "row", shown);
    }
    who.row.classList.toggle("gone", count === 0);
    who.row.hidden = count === 0 && !who.failed && who.order < revisions.size - ROWS;
    who.row.children[2].textContent = who.total.toLocaleString("en");
    who.row.children[3].textContent = share;
  }
}

// Puts a new element before those of revisions that were first seen later; failures come last.
function place(parent, who, part, shown) {
  const next = shown.find((other) => other.who.order > who.order && other.who[part]);
  parent.insertBefore(who[part], next ? next.who[part] : null);
}

function drawPace() {
  const recent = latest.filter(({ at }) => performance.now() - at < 3000);
  const times = latest.filter(({ who }) => !who.failed).map(({ took }) => took).sort((a, b) => a - b);
  const median = times.length ? `, ${Math.max(1, Math.round(times[times.length >> 1]))} ms each` : "";
  const failing = failuresInARow > 2;
  $("lamp").className = `lamp ${paused ? "paused" : failing ? "failing" : ""}`;
  $("pace").textContent = paused
    ? "Paused"
    : failing
      ? "No answer; asking less often"
      : `Last ${latest.length} requests, ${Math.max(1, Math.round(recent.length / 3))} a second${median}`;
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").textContent = paused ? "Resume" : "Pause";
  drawPace();
});
paint($("served-swatch"), known(document.body.dataset.revision, document.body.dataset.commit));
tick();
