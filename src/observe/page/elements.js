"use strict";
// Elements, and figures as people say them. Text only ever gets in as text, never as HTML.

const byId = (id) => document.getElementById(id);

/** An element with attributes (`class`, `on…` as listeners, others as they are) and children, which may be text. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  return fill(element, attributes, children);
}

/** The same, in SVG. */
function draw(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  return fill(element, attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Sets an attribute or text only where it differs, so that nothing that is looked at is disturbed. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/**
 * Makes a parent's children those of a list: each item keeps its element by its key, so that focus and clicks survive an
 * update. `create(item)` makes an element, `update(element, item)` fills it.
 */
function keep(parent, items, key, create, update) {
  const known = parent.known ?? (parent.replaceChildren(), new Map());
  parent.known = known;
  const wanted = new Set(items.map(key));
  for (const [own, element] of known) {
    if (!wanted.has(own)) {
      element.remove();
      known.delete(own);
    }
  }
  items.forEach((item, at) => {
    const own = key(item);
    if (!known.has(own)) known.set(own, create(item));
    const element = known.get(own);
    if (parent.children[at] !== element) parent.insertBefore(element, parent.children[at] ?? null);
    update(element, item);
  });
}

/** `12,300`. */
const count = (number) => Math.round(number).toLocaleString("en-US");

/** `3.2 M`, for axes and narrow places. */
function brief(number) {
  const size = Math.abs(number);
  for (const [unit, name] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (size >= unit) return trimmed(number / unit) + name;
  }
  return size >= 10 || number === 0 ? String(Math.round(number)) : trimmed(number);
}

const trimmed = (number) => (Math.abs(number) >= 100 ? number.toFixed(0) : number.toFixed(1).replace(/\.0$/, ""));

/** `0.4 s`, `45 s`, `12 min`, `3 h 20 min`, as the findings say it. */
function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 100) return `${whole} s`;
  if (whole < 5970) return `${Math.floor((whole + 30) / 60)} min`;
  const parts = whole < 172800
    ? [[Math.floor(whole / 3600), "h"], [Math.floor((whole % 3600) / 60), "min"]]
    : [[Math.floor(whole / 86400), "d"], [Math.floor((whole % 86400) / 3600), "h"]];
  return parts.filter(([number]) => number > 0).map(([number, unit]) => `${number} ${unit}`).join(" ");
}

/** `850 µs`, `1.2 ms`, `3 s`, from microseconds. */
function latency(us) {
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${trimmed(us / 1000)} ms`;
  return us < 1e8 ? `${trimmed(us / 1e6)} s` : duration(us / 1e6);
}

/** `256 MiB`. */
const bytes = (number) => (number >= 2 ** 30 ? `${(number / 2 ** 30).toFixed(1)} GiB` : `${Math.round(number / 2 ** 20)} MiB`);

const percent = (share) => `${Math.round(share * 100)} %`;

const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

/** A UUID's beginning and end, for where all of it does not fit; the whole is its title. */
const short = (id) => (id.length > 20 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id);
