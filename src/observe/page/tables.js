"use strict";
// Findings, shards, what is hot, rules, processes: each a list whose elements stay as long as their item does.

const SIGNS = { bad: "!", warn: "!", info: "i", good: "✓" };
const LEVELS = { bad: "Bad", warn: "Warning", info: "For information", good: "Good" };

function showFindings(findings, prepare) {
  keep(byId("finding-list"), findings, ({ id }) => id, makeFinding, (element, finding) => updateFinding(element, finding, prepare));
  const heard = findings.map(({ level, id }) => `${level} ${id}`).join();
  const announced = byId("announced");
  // Said again only when something else is the case, not with each figure.
  if (announced.heard !== heard) {
    announced.heard = heard;
    setText(announced, findings.map(({ level, what }) => `${LEVELS[level]}: ${what}.`).join(" "));
  }
}

function makeFinding() {
  const parts = {
    sign: make("span", { class: "sign" }), what: make("p", { class: "what" }), why: make("p", { class: "why" }), steps: make("ul", { class: "steps" }),
  };
  return Object.assign(make("li", {}, ...Object.values(parts)), { parts });
}

function updateFinding(element, finding, prepare) {
  const { sign, what, why, steps } = element.parts;
  setAttribute(element, "class", `finding ${finding.level}`);
  setText(sign, SIGNS[finding.level]);
  setAttribute(sign, "title", LEVELS[finding.level]);
  setText(what, finding.what);
  setText(why, finding.why === "" ? "" : `${finding.why[0].toUpperCase()}${finding.why.slice(1)}.`);
  why.hidden = finding.why === "";
  const items = finding.steps.map((step) => ({ ...step, rule: step.run.startsWith("millpond rules add") ? finding.rule : null }));
  steps.hidden = items.length === 0;
  keep(steps, items, ({ say, run }) => say + run, ({ say, run, rule }) => {
    const line = make("li", {}, make("span", {}, run ? `${say}:` : `${say}.`));
    if (run) line.append(make("code", {}, run), copyButton(run));
    if (rule) line.append(make("button", { type: "button", class: "small", onclick: () => prepare(rule[0], rule[1]) }, "Prepare this rule"));
    return line;
  }, () => {});
}

function copyButton(text) {
  const button = make("button", { type: "button", class: "small", "aria-label": `Copy: ${text}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it by hand";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return button;
}

/** A row of cells, each with the name that it has on a phone. */
function row(names) {
  const cells = names.map((name) => make("td", { "data-name": name }));
  return Object.assign(make("tr", {}, ...cells), { cells_: cells });
}

function showShards(status, setWorkers) {
  const names = ["Shard", "State", "Time lag", "Lag", "Rows/s", "Connections", "Lanes", "Workers"];
  keep(byId("shards"), status.shards, ({ name }) => name, (shard) => {
    const element = row(names);
    const cells = element.cells_;
    cells[2].className = cells[3].className = "right";
    cells[0].append(make("strong", {}, shard.name), make("div", { class: "soft" }));
    cells[1].append(make("span", { class: "tag" }), make("div", { class: "soft" }));
    cells[4].append(make("span"), make("div", { class: "meter" }, make("i")));
    cells[5].append(make("span"), make("div", { class: "meter" }, make("i"), make("i", { class: "idle" }), make("i", { class: "down" })));
    cells[6].append(make("div", { class: "lanes", role: "img" }), make("span", { class: "soft" }));
    cells[7].append(workersForm(shard, setWorkers));
    return element;
  }, updateShard);
}

function updateShard(element, shard) {
  const [name, state, behind, lag, rows, connections, lanes, workers] = element.cells_;
  setText(name.lastChild, `apps ${shard.apps}`);
  const [idle, busy, down] = shard.connections;
  const level = !shard.up || (down > 0 && idle + busy === 0) ? "bad" : down > 0 ? "warn" : "good";
  setAttribute(state.firstChild, "class", `tag ${level}`);
  setText(state.firstChild, { bad: "down", warn: "partly up", good: "up" }[level]);
  setText(state.lastChild, level === "good" ? "" : shard.why);
  setText(behind, duration(shard.time_lag_s));
  setText(lag, count(shard.lag));
  const isBound = shard.bound > 0;
  const share = isBound && shard.bound_here > 0 ? Math.min(1, shard.rows_per_s / shard.bound_here) : 0;
  const held = shard.held_back >= 0.01 ? `, held back ${percent(shard.held_back)}` : "";
  setText(rows.firstChild, isBound ? `${count(shard.rows_per_s)} of ${count(shard.bound_here)}${held}` : `${count(shard.rows_per_s)}, no bound`);
  rows.lastChild.hidden = !isBound;
  setAttribute(rows.lastChild, "class", share >= 0.9 ? "meter full" : "meter");
  rows.lastChild.firstChild.style.width = `${share * 100}%`;
  setText(connections.firstChild, `${busy} busy, ${idle} idle${down > 0 ? `, ${down} down` : ""}`);
  const all = Math.max(1, idle + busy + down);
  [busy, idle, down].forEach((part, at) => { connections.lastChild.children[at].style.width = `${(part / all) * 100}%`; });
  updateLanes(lanes, shard);
  workers.firstChild.show(shard.workers);
}

function updateLanes(cell, shard) {
  const [bars, text] = cell.children;
  const most = Math.max(1, ...shard.lanes.map((lane) => lane[2]));
  keep(bars, shard.lanes.slice(0, 64), ([group, lane]) => `${group}.${lane}`, () => make("i"), (bar, lane) => {
    bar.style.height = `${Math.max(6, (lane[2] / most) * 100)}%`;
    setAttribute(bar, "class", lane[3] === 2 ? "down" : "");
    setAttribute(bar, "title", `lane ${lane[1]} of core group ${lane[0]}: ${count(lane[2])} waiting, ${["idle", "busy", "down"][lane[3]]}`);
  });
  const waiting = shard.lanes.reduce((sum, lane) => sum + lane[2], 0);
  const deepest = Math.max(0, ...shard.lanes.map((lane) => lane[2]));
  const parked = shard.parked > 0 ? `, ${count(shard.parked)} for locked rows` : "";
  setText(text, `${count(waiting)} waiting, ${count(deepest)} in the deepest${parked}`);
  setAttribute(bars, "aria-label", `${shard.lanes.length} lanes`);
}

function showHot(id, items, shards, prepare) {
  const isRow = id === "hot-rows";
  const names = [isRow ? "Row" : "App", "Share", "A second", "DB time", ""];
  keep(byId(id), items, ({ app, subscription }) => `${app} ${subscription}`, (item) => {
    const element = row(names);
    const cells = element.cells_;
    cells[2].className = cells[3].className = "right";
    const name = isRow ? item.subscription : item.app;
    cells[0].append(make("span", { class: "mono", title: name }, short(name)), make("div", { class: "soft" }));
    cells[1].append(make("span"), make("div", { class: "meter" }, make("i")));
    cells[4].append(make("button", {
      type: "button", class: "small", "aria-label": `Prepare a rule that skips ${isRow ? "row" : "app"} ${name}`, onclick: () => prepare(item.app, item.subscription),
    }, "Skip…"));
    return element;
  }, (element, item) => {
    const [name, share, rate, database] = element.cells_;
    setText(name.lastChild, `${isRow ? `app ${short(item.app)}, ` : ""}shard ${shards[item.shard]?.name ?? "?"}`);
    setText(share.firstChild, `${(item.share * 100).toFixed(1)} %`);
    share.lastChild.firstChild.style.width = `${Math.min(1, item.share) * 100}%`;
    setText(rate, count(item.messages_per_s));
    setText(database, percent(item.database_share));
  });
  const table = byId(id);
  if (items.length === 0 && table.childElementCount === 0) nothing(table, "Nothing lately.", 5);
}

/** A line that says that a table is empty. It goes when something comes. */
function nothing(table, text, columns) {
  delete table.known;
  table.replaceChildren(make("tr", {}, make("td", { colspan: columns, class: "soft", "data-name": "" }, text)));
}

function showRules(rules, remove) {
  const names = ["Skips", "Reason", "Since", "Until", "Skipped", ""];
  const table = byId("rules");
  if (rules.shown.length === 0) {
    nothing(table, "No rule is active.", 6);
    return;
  }
  keep(table, rules.shown, ({ id }) => id, (rule) => {
    const element = row(names);
    const cells = element.cells_;
    const what = rule.subscription ? ["row", rule.subscription] : rule.parent ? ["links to", rule.parent] : ["all of", ""];
    cells[0].append(make("div", {}, `${what[0]} `, make("span", { class: "mono" }, what[1] || rule.app)));
    if (what[1]) cells[0].append(make("div", { class: "soft" }, "app ", make("span", { class: "mono" }, rule.app)));
    cells[1].append(make("div", {}, rule.reason), make("div", { class: "soft" }, rule.author));
    cells[2].append(rule.created_at.replace("T", " ").slice(0, 19));
    cells[3].append(rule.until === "" ? "taken back" : rule.until.replace("T", " ").slice(0, 19));
    cells[4].className = "right";
    cells[5].append(make("button", { type: "button", class: "small", "aria-label": `Take back the rule “${rule.reason}”`, onclick: (event) => remove(rule, event.target) }, "Take back"));
    return element;
  }, (element, rule) => {
    const undecided = rule.undecided > 0 ? ` (not yet decided in ${rule.undecided} partitions)` : "";
    setText(element.cells_[4], `${count(rule.skipped)}${undecided}`);
  });
}

function showProcesses(processes) {
  byId("processes-section").hidden = processes.length === 0;
  const names = ["Process", "State", "Partitions", "Time lag", "Lag", "Messages/s", "CPU", "Memory", "Up"];
  keep(byId("processes"), processes, ({ address }) => address, () => {
    const element = row(names);
    element.cells_[0].append(make("strong"), make("div", { class: "soft" }));
    element.cells_[1].append(make("span", { class: "tag" }), make("div", { class: "soft" }));
    element.cells_.slice(2).forEach((cell) => { cell.className = "right"; });
    return element;
  }, (element, { address, error, process, now, level }) => {
    const [name, state, ...figures] = element.cells_;
    setText(name.firstChild, address === "" ? "this one" : address);
    setText(name.lastChild, error ? "" : `${process.host}, pid ${process.pid}, ${process.version}`);
    setAttribute(state.firstChild, "class", `tag ${error ? "bad" : level}`);
    setText(state.firstChild, error ? "no answer" : { bad: "trouble", warn: "look", info: "well", good: "well" }[level]);
    setText(state.lastChild, error);
    const values = error ? figures.map(() => "") : [
      count(now.assigned), duration(now.time_lag_s), count(now.lag), count(now.messages_per_s), `${now.cpu.toFixed(2)} cores`, bytes(process.rss_bytes), duration(process.uptime_s),
    ];
    figures.forEach((cell, at) => setText(cell, values[at]));
  });
}
