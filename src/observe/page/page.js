"use strict";
// Asks for /api/status once a second and shows it. While nobody answers it says since when, and goes on trying.

const POLL_MS = 1000;
/** The server answers within a tenth of a second, or something is wrong. */
const ANSWER_MS = 5000;

const tiles = [
  { id: "lag", name: "Lag", large: true, chart: new TimeChart("Lag in messages", 140, brief), values: "lag",
    value: ({ now }) => [count(now.lag), "messages not yet applied"] },
  { id: "time-lag", name: "Time lag", large: true, chart: new TimeChart("Time lag", 140, (seconds) => duration(seconds), 1, roundUpTime), values: "time_lag_s",
    value: ({ now }) => [duration(now.time_lag_s), "age of the oldest of them"] },
  { id: "rate", name: "Messages applied", chart: new TimeChart("Messages a second", 110, brief), values: "messages_per_s",
    value: ({ now }) => [`${count(now.messages_per_s)}/s`, `${count(now.rows_per_s)} rows/s`] },
  { id: "cpu", name: "CPU", chart: new TimeChart("Cores busy", 110, (cores) => String(Number(cores.toFixed(2))), 0.5), values: "cpu",
    value: ({ now, process }) => [`${now.cpu.toFixed(2)}`, `of ${process.cores} cores, ${bytes(process.rss_bytes)} RAM`] },
  { id: "idle", name: "Idle connections", chart: new TimeChart("Share of connections that are idle", 110, percent, 1), values: "idle",
    value: ({ now, shards }) => [percent(now.idle), `of ${count(shards.flatMap((shard) => shard.connections).reduce((sum, part) => sum + part, 0))}`] },
];

for (const tile of tiles) {
  tile.figure = make("span", { id: `figure-${tile.id}` });
  tile.beside = make("small");
  byId("tiles").append(make("div", { class: tile.large ? "tile large" : "tile" },
    make("div", { class: "name" }, tile.name), make("div", { class: "value" }, tile.figure, tile.beside), tile.chart.svg));
}

const heat = new HeatMap();
const curves = [
  { chart: new LatencyChart("Apply: from dispatch until Postgres has it"), of: "apply" },
  { chart: new LatencyChart("End to end: from the Kafka timestamp until Postgres has it"), of: "end_to_end" },
];
byId("latency").append(...curves.map(({ chart }) => chart.element));

function show(status) {
  showFindings(status.findings, prepareRule);
  showWho(status);
  setText(byId("now-title"), `Now, and the last 15 minutes${status.processes.length > 1 ? ", of this process" : ""}`);
  const { history } = status;
  for (const tile of tiles) {
    const [figure, beside] = tile.value(status);
    setText(tile.figure, figure);
    setText(tile.beside, beside);
    tile.chart.show(history.at_ms, history[tile.values], status.at_ms);
  }
  heat.show(status);
  showShards(status, setWorkers);
  for (const { chart, of } of curves) chart.show(status.latency[of], status.latency[`${of}_run`], status.latency.interval_s);
  showHot("hot-rows", status.hot.rows, status.shards, prepareRule);
  showHot("hot-apps", status.hot.apps, status.shards, prepareRule);
  showRules(status.rules, removeRule);
  showProcesses(status.processes);
  byId("token-line").hidden = status.changes !== "token";
  byId("changes-here").hidden = status.changes !== "here";
}

function showWho(status) {
  const { process } = status;
  const facts = [
    ["Topic", status.topic], ["Group", status.group], ["Process", `${process.host}, pid ${process.pid}`],
    ["Partitions", `${count(status.now.assigned)} of ${count(status.partitions_of_topic)}`], ["Up", duration(process.uptime_s)],
  ];
  keep(byId("who"), facts, ([name]) => name, ([name]) => make("div", {}, make("dt", {}, name), make("dd")),
    (element, [, value]) => setText(element.lastChild, value));
  setText(byId("about"), `Millpond ${process.version}, as of ${clock(status.at_ms)}`);
  const worst = status.findings[0];
  document.title = worst && worst.level !== "good" && worst.level !== "info" ? `${SIGNS.bad} ${worst.what} · Millpond` : "Millpond";
}

let answered = Date.now();

async function poll() {
  const live = byId("live");
  try {
    const answer = await fetch("/api/status", { signal: AbortSignal.timeout(ANSWER_MS), cache: "no-store" });
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    show(await answer.json());
    answered = Date.now();
    byId("away").hidden = true;
    document.querySelector("main").classList.remove("stale");
    setAttribute(live, "class", "live on");
    setText(live, "live");
  } catch (error) {
    // Said at once to those who look; a problem of the page itself goes to the console as well.
    if (!["TypeError", "TimeoutError", "AbortError"].includes(error.name) || error.stack?.includes("show")) console.error(error);
    const since = duration((Date.now() - answered) / 1000);
    setText(byId("away"), `No answer from the server since ${clock(answered)} (${since}). What you see is from then; trying again every second.`);
    byId("away").hidden = false;
    document.querySelector("main").classList.add("stale");
    setAttribute(live, "class", "live off");
    setText(live, "no answer");
  }
  // Nobody looks at a tab in the background.
  if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  setTimeout(poll, POLL_MS);
}

const THEME = "millpond-theme";
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

/** The chosen theme, or the system's. */
function applyTheme() {
  const theme = sessionStorage.getItem(THEME) ?? (prefersDark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  setText(byId("theme"), theme === "dark" ? "Light" : "Dark");
}

byId("theme").addEventListener("click", () => {
  sessionStorage.setItem(THEME, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  applyTheme();
});
prefersDark.addEventListener("change", applyTheme);
applyTheme();
poll();
