"use strict";
// All partitions as a map, by shard. Each is a cell that can be pointed at and, with the arrow keys, moved to.

/** By what cells are coloured: the column, its steps (the lower bounds of classes 1 to 6), and how a value is said. */
const HEAT_BY = {
  time_lag_ms: {
    name: "Time lag", steps: [1, 1000, 10000, 60000, 600000, 3600000],
    legend: ["none", "< 1 s", "1–10 s", "10–60 s", "1–10 min", "10–60 min", "≥ 1 h"],
  },
  lag: {
    name: "Lag", steps: [1, 100, 1000, 10000, 100000, 1000000],
    legend: ["none", "< 100", "100–1 k", "1–10 k", "10–100 k", "100 k–1 M", "≥ 1 M"],
  },
  in_memory: {
    name: "In memory", steps: [1, 10, 100, 1000, 4000, 8000],
    legend: ["none", "< 10", "10–100", "100–1 k", "1–4 k", "4–8 k", "≥ 8 k"],
  },
  oldest_ms: {
    name: "Oldest in memory", steps: [1, 100, 1000, 5000, 30000, 300000],
    legend: ["none", "< 0.1 s", "0.1–1 s", "1–5 s", "5–30 s", "0.5–5 min", "≥ 5 min"],
  },
};

const ALARMS = ["", "stands still: records are gone from Kafka", "stands still: a record can’t be read"];

class HeatMap {
  constructor() {
    this.by = "time_lag_ms";
    this.cells = [];
    this.chosen = 0;
    this.map = byId("heat");
    this.said = byId("heat-said");
    this.makeSwitch();
    this.map.addEventListener("mouseover", (event) => this.point(event.target));
    this.map.addEventListener("focusin", (event) => this.point(event.target));
    this.map.addEventListener("keydown", (event) => this.key(event));
  }

  makeSwitch() {
    const names = Object.keys(HEAT_BY);
    this.buttons = names.map((by) => make("button", {
      type: "button", role: "radio", "aria-checked": String(by === this.by), tabindex: by === this.by ? 0 : -1, onclick: () => this.choose(by),
    }, HEAT_BY[by].name));
    byId("heat-by").append(...this.buttons);
    byId("heat-by").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const at = (names.indexOf(this.by) + step + names.length) % names.length;
      this.choose(names[at]);
      this.buttons[at].focus();
    });
    this.legend();
  }

  choose(by) {
    this.by = by;
    Object.keys(HEAT_BY).forEach((own, at) => {
      setAttribute(this.buttons[at], "aria-checked", own === by);
      setAttribute(this.buttons[at], "tabindex", own === by ? 0 : -1);
    });
    this.legend();
    if (this.status) this.show(this.status);
  }

  legend() {
    const classes = HEAT_BY[this.by].legend.map((text, at) => [`h${at}`, text]);
    const others = [["none", "not here"], ["unknown", "not known yet"], ["alarm", "stands still"]];
    byId("heat-legend").replaceChildren(...[...classes, ...others].map(([name, text]) =>
      make("li", {}, make("span", { class: `cell ${name}` }), text)));
  }

  show(status) {
    this.status = status;
    if (this.cells.length !== status.partitions_of_topic || this.shards !== status.shards.length) this.build(status);
    const place = new Array(this.cells.length).fill(-1);
    status.partitions.number.forEach((number, at) => { place[number] = at; });
    this.place = place;
    this.cells.forEach((cell, number) => setAttribute(cell, "class", `cell ${this.classOf(place[number])}`));
    status.shards.forEach((shard, at) => {
      const [first, all] = shard.partitions;
      const known = place.slice(first, first + all).filter((own) => own >= 0).length;
      const here = known < all ? `, ${known} of them shown here` : "";
      setText(this.titles[at], `apps ${shard.apps} · partitions ${first} to ${first + all - 1}${here}`);
    });
    if (this.pointed !== undefined) this.say(this.pointed);
  }

  build(status) {
    this.shards = status.shards.length;
    this.cells = Array.from({ length: status.partitions_of_topic }, (_, number) =>
      make("div", { class: "cell none", role: "img", tabindex: number === this.chosen ? 0 : -1, "data-number": number, "aria-label": `partition ${number}` }));
    this.titles = status.shards.map(() => make("small"));
    this.map.replaceChildren(...status.shards.map((shard, at) => {
      const [first, all] = shard.partitions;
      return make("div", {},
        make("h3", {}, `Shard ${shard.name} `, this.titles[at]),
        make("div", { class: "cells", role: "group", "aria-label": `Partitions of shard ${shard.name}` }, ...this.cells.slice(first, first + all)));
    }));
  }

  classOf(at) {
    if (at < 0) return "none";
    const { partitions } = this.status;
    if (partitions.alarm[at] > 0) return "alarm";
    if (partitions.lag[at] < 0) return "unknown";
    const value = partitions[this.by][at];
    return `h${HEAT_BY[this.by].steps.filter((step) => value >= step).length}`;
  }

  point(cell) {
    if (cell.dataset?.number === undefined) return;
    this.pointed = Number(cell.dataset.number);
    this.say(this.pointed);
  }

  say(number) {
    const { partitions, shards, processes } = this.status;
    const at = this.place[number];
    const shard = shards.find(({ partitions: [first, all] }) => number >= first && number < first + all);
    let text = `Partition ${number} of shard ${shard?.name}`;
    if (at === undefined || at < 0) text += processes.length > 1 ? ": no process that is shown has it." : ": another process has it, or none.";
    else {
      const lag = partitions.lag[at] < 0 ? "lag not known yet" : `lag ${count(partitions.lag[at])}, time lag ${duration(partitions.time_lag_ms[at] / 1000)}`;
      text += `: ${lag}, ${count(partitions.in_memory[at])} in memory, the oldest for ${duration(partitions.oldest_ms[at] / 1000)}`;
      const owner = processes[partitions.process[at]];
      if (owner?.address) text += `, at ${owner.address}`;
      if (partitions.alarm[at] > 0) text += `. It ${ALARMS[partitions.alarm[at]]}`;
      text += ".";
    }
    setText(this.said, text);
    setAttribute(this.cells[number], "aria-label", text);
    setAttribute(this.cells[number], "title", text);
  }

  key(event) {
    const number = Number(event.target.dataset?.number);
    if (Number.isNaN(number)) return;
    const columns = getComputedStyle(event.target.parentElement).gridTemplateColumns.split(" ").length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -number, End: this.cells.length };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const wanted = Math.max(0, Math.min(this.cells.length - 1, number + steps[event.key]));
    setAttribute(this.cells[this.chosen], "tabindex", -1);
    this.chosen = wanted;
    setAttribute(this.cells[wanted], "tabindex", 0);
    this.cells[wanted].focus();
  }
}
