"use strict";
// Charts in plain SVG: a series over time, and percentile curves.

const CHART = { left: 46, right: 10, top: 14, bottom: 20 };

/** The smallest of 1, 2, 5 · 10^n that is not below the value. */
function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.9999);
}

/** The same for a time in seconds, in steps that people know, and whose halves they know as well. */
function roundUpTime(seconds) {
  const steps = [1, 2, 4, 10, 20, 60, 120, 240, 600, 1200, 3600, 14400, 43200, 86400];
  return steps.find((step) => step >= seconds) ?? roundUp(seconds / 86400) * 86400;
}

/** A frame with room for axes. `label` says what it is to those who don't see it. */
function frame(height, label) {
  const svg = draw("svg", { height, class: "chart", role: "img", "aria-label": label });
  const content = draw("g");
  const reading = draw("g", { visibility: "hidden" });
  svg.append(content, reading);
  return { svg, content, reading, width: 560, bottom: height - CHART.bottom };
}

/** Draws in the pixels that there are, so that text has its size at any width; again when they become others. */
function fit(chart) {
  const { frame } = chart;
  const measure = () => {
    const width = Math.round(frame.svg.getBoundingClientRect().width);
    if (width === 0 || width === frame.measured) return;
    frame.measured = frame.width = width;
    setAttribute(frame.svg, "viewBox", `0 0 ${width} ${frame.bottom + CHART.bottom}`);
    chart.paint();
  };
  new ResizeObserver(measure).observe(frame.svg);
}

/** A chart of the last 15 minutes. `say(value)` writes a value; `top`: the axis ends at least there. */
class TimeChart {
  constructor(label, height, say, top = 0, round = roundUp) {
    this.round = round;
    this.frame = frame(height, label);
    this.label = label;
    this.say = say;
    this.top = top;
    this.svg = this.frame.svg;
    this.svg.addEventListener("pointermove", (event) => this.read(event.clientX));
    this.svg.addEventListener("pointerleave", () => setAttribute(this.frame.reading, "visibility", "hidden"));
    fit(this);
  }

  show(times, values, now) {
    Object.assign(this, { times, values, now });
    this.paint();
  }

  paint() {
    const { times, values, now } = this;
    if (times === undefined) return;
    const { content, bottom, width } = this.frame;
    this.max = Math.max(this.top, this.round(Math.max(0, ...values)));
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      const y = this.y(this.max * share);
      parts.push(draw("line", { class: "grid", x1: CHART.left, x2: width - CHART.right, y1: y, y2: y }));
      parts.push(draw("text", { x: CHART.left - 6, y: y + 4, "text-anchor": "end" }, share === 0 ? "0" : this.say(this.max * share)));
    }
    for (const minutes of width < 300 ? [15, 0] : [15, 10, 5, 0]) {
      const x = this.x(now - minutes * 60000);
      const anchor = minutes === 15 ? "start" : minutes === 0 ? "end" : "middle";
      parts.push(draw("text", { x, y: bottom + 14, "text-anchor": anchor }, minutes === 0 ? "now" : `−${minutes} min`));
    }
    const points = values.map((value, at) => `${this.x(times[at]).toFixed(1)} ${this.y(value).toFixed(1)}`);
    if (points.length > 1) {
      const [first, last] = [this.x(times[0]), this.x(times.at(-1))];
      parts.push(draw("path", { class: "area", d: `M${first} ${bottom}L${points.join("L")}L${last} ${bottom}Z` }));
      parts.push(draw("path", { class: "curve", d: `M${points.join("L")}` }));
    }
    content.replaceChildren(...parts);
    const newest = values.length > 0 ? `, now ${this.say(values.at(-1))}, at most ${this.say(Math.max(...values))}` : "";
    setAttribute(this.svg, "aria-label", `${this.label} over 15 minutes${newest}`);
  }

  x(time) {
    const share = 1 - (this.now - time) / 900000;
    return CHART.left + Math.max(0, Math.min(1, share)) * (this.frame.width - CHART.left - CHART.right);
  }

  y(value) {
    const { bottom } = this.frame;
    return bottom - (value / this.max) * (bottom - CHART.top);
  }

  /** Shows the sample that is nearest to the pointer. */
  read(clientX) {
    if (!this.times?.length) return;
    const box = this.svg.getBoundingClientRect();
    const wanted = ((clientX - box.left) / box.width) * this.frame.width;
    const distance = (at) => Math.abs(this.x(this.times[at]) - wanted);
    const nearest = this.times.reduce((best, _, at) => (distance(at) < distance(best) ? at : best), 0);
    const [x, y] = [this.x(this.times[nearest]), this.y(this.values[nearest])];
    const anchor = x > this.frame.width / 2 ? "end" : "start";
    this.frame.reading.replaceChildren(
      draw("line", { class: "cross", x1: x, x2: x, y1: CHART.top, y2: this.frame.bottom }),
      draw("circle", { class: "dot", cx: x, cy: y, r: 4 }),
      draw("text", { class: "read", x: x + (anchor === "end" ? -8 : 8), y: CHART.top + 4, "text-anchor": anchor },
        `${this.say(this.values[nearest])} at ${clock(this.times[nearest])}`),
    );
    setAttribute(this.frame.reading, "visibility", "visible");
  }
}

const POINTS_PER_DECADE = 5;
const DECADES = [[0, "0 %"], [1, "90 %"], [2, "99 %"], [3, "99.9 %"], [4, "99.99 %"], [5, "99.999 %"], [6, "99.9999 %"]];

/** Percentiles on a logarithmic axis of 1/(1−p): the last interval, and the whole run dashed. */
class LatencyChart {
  constructor(title) {
    this.frame = frame(230, title);
    this.title = title;
    this.figures = make("p", { class: "note mono" });
    this.keys = make("ul", { class: "keys" });
    this.element = make("div", {}, make("h3", {}, title), this.frame.svg, this.keys, this.figures);
    fit(this);
  }

  show(interval, run, interval_s) {
    Object.assign(this, { interval, run });
    this.paint();
    this.say(interval, run, interval_s);
  }

  paint() {
    const { interval, run } = this;
    if (interval === undefined) return;
    const { content, bottom, width } = this.frame;
    const all = [...interval.us, ...run.us].filter((us) => us > 0);
    const decades = Math.max(3, Math.ceil((Math.max(interval.us.length, run.us.length) - 1) / POINTS_PER_DECADE));
    const low = 10 ** Math.floor(Math.log10(Math.min(...all, 1000)));
    const high = 10 ** Math.ceil(Math.log10(Math.max(...all, 10000) * 1.0001));
    const x = (point) => CHART.left + 14 + (point / (decades * POINTS_PER_DECADE)) * (width - CHART.left - CHART.right - 34);
    const y = (us) => bottom - (Math.log10(Math.max(us, low) / low) / Math.log10(high / low)) * (bottom - CHART.top);
    const parts = [];
    for (let us = low; us <= high * 1.01; us *= 10) {
      parts.push(draw("line", { class: "grid", x1: CHART.left + 14, x2: width - CHART.right, y1: y(us), y2: y(us) }));
      parts.push(draw("text", { x: CHART.left + 8, y: y(us) + 4, "text-anchor": "end" }, us < 1e6 ? latency(us) : `${count(us / 1e6)} s`));
    }
    const isNarrow = width / decades < 62;
    for (const [decade, name] of DECADES.filter(([own]) => own <= decades && !(isNarrow && own % 2 === 1))) {
      const at = x(decade * POINTS_PER_DECADE);
      parts.push(draw("line", { class: "grid", x1: at, x2: at, y1: CHART.top, y2: bottom }));
      parts.push(draw("text", { x: at, y: bottom + 14, "text-anchor": "middle" }, name));
    }
    for (const [curve, name] of [[run, "curve run"], [interval, "curve"]]) {
      const points = curve.us.map((us, at) => `${x(at).toFixed(1)} ${y(us).toFixed(1)}`);
      if (points.length > 1) parts.push(draw("path", { class: name, d: `M${points.join("L")}` }));
    }
    content.replaceChildren(...parts);
  }

  say(interval, run, interval_s) {
    const at = (curve, decade) => curve.us[decade * POINTS_PER_DECADE];
    const words = (curve) => (curve.count === 0
      ? "nothing applied"
      : [["p90", at(curve, 1)], ["p99", at(curve, 2)], ["p99.9", at(curve, 3)], ["max", curve.max_us]]
        .filter(([, us]) => us !== undefined)
        .map(([name, us]) => `${name} ${latency(us)}`)
        .join(" · "));
    keep(this.keys, [["", `last ${duration(interval_s)}`], ["run", "since the process began"]], ([name]) => name,
      ([name]) => make("li", {}, make("i", { class: name }), make("span")),
      (element, [, text]) => setText(element.lastChild, text));
    setText(this.figures, words(interval));
    setAttribute(this.frame.svg, "aria-label",
      `${this.title} by percentile. Last ${duration(interval_s)}: ${words(interval)}. Since the process began: ${words(run)}.`);
  }
}
