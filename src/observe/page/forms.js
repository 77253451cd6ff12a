"use strict";
// What the page can change: rules and workers. The server's refusals are shown as it writes them.

const TOKEN = "millpond-token";
const token = byId("token");
token.value = sessionStorage.getItem(TOKEN) ?? "";
token.addEventListener("input", () => sessionStorage.setItem(TOKEN, token.value));

/** Changes may take seconds, and never longer. */
const CHANGE_TIMEOUT_MS = 30000;

/** Asks for a change. The answer, or an error with the server's own words. */
async function change(method, path, body) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  if (token.value !== "") headers.authorization = `Bearer ${token.value}`;
  const answer = await fetch(path, {
    method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal: AbortSignal.timeout(CHANGE_TIMEOUT_MS),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text.trim() || `the server answered ${answer.status}`);
  return JSON.parse(text);
}

function say(element, text, kind = "") {
  setAttribute(element, "class", `said ${kind}`);
  setText(element, text);
}

/** Does it while its button is off, and says what came of it. */
async function attempt(button, said, doing, act) {
  button.disabled = true;
  say(said, doing);
  try {
    say(said, await act(), "good");
    return true;
  } catch (error) {
    say(said, error.name === "TimeoutError" ? "no answer within 30 s; look whether it was done all the same" : error.message, "bad");
    return false;
  } finally {
    button.disabled = false;
  }
}

/** `in one partition`, `in 3 partitions`; nothing where all is decided. */
const lacking = ({ undecided }) => (undecided.length === 0 ? "" : `; not yet decided in ${undecided.length} partitions here`);

const ruleForm = byId("rule-form");
const ruleSaid = byId("rule-said");

ruleForm.addEventListener("submit", async (event) => {
  event.preventDefault();
  const asked = {};
  for (const [name, value] of new FormData(ruleForm)) if (value.trim() !== "") asked[name] = value.trim();
  const done = await attempt(ruleForm.querySelector("button"), ruleSaid, "Asking the group…", async () => {
    const rule = await change("POST", "/api/rules", asked);
    return `Rule ${rule.id} holds${lacking(rule)}.`;
  });
  if (!done) return;
  const author = ruleForm.elements.author.value;
  ruleForm.reset();
  ruleForm.elements.author.value = author;
});

/** Fills the form for a rule; the reason is for whoever makes it. */
function prepareRule(app, subscription) {
  const { app_id, subscription_id, parent_id, reason } = ruleForm.elements;
  [app_id.value, subscription_id.value, parent_id.value] = [app, subscription, ""];
  ruleForm.scrollIntoView({ block: "center" });
  reason.focus({ preventScroll: true });
  say(ruleSaid, "Say why and who you are; nothing is skipped before you press the button.");
}

function removeRule(rule, button) {
  const author = ruleForm.elements.author.value.trim();
  if (author === "") {
    ruleForm.elements.author.focus();
    say(ruleSaid, "Your name first: it is written down who takes a rule back.", "bad");
    return;
  }
  attempt(button, ruleSaid, "Asking the group…", async () => {
    const query = new URLSearchParams({ id: rule.id, author });
    const removed = await change("DELETE", `/api/rules?${query}`);
    return `Rule ${rule.id} is taken back${lacking(removed)}. What it skipped stays skipped.`;
  });
}

/** The number of a shard's workers, with a field to change it. */
function workersForm(shard, setWorkers) {
  const field = make("input", { type: "number", min: 1, max: 64, required: true, "aria-label": `Workers of shard ${shard.name} in each core group` });
  const button = make("button", { class: "small" }, "Set");
  const form = make("form", { class: "set" }, field, button);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    setWorkers(shard.name, Number(field.value), button);
  });
  // What somebody is typing stays.
  field.addEventListener("input", () => { field.touched = true; });
  form.show = (workers) => {
    if (Number(field.value) === workers) field.touched = false;
    if (!field.touched && document.activeElement !== field) field.value = workers;
  };
  return form;
}

function setWorkers(shard, workers, button) {
  attempt(button, byId("workers-said"), `Setting the workers of shard ${shard}…`, async () => {
    const { changes } = await change("PUT", "/api/workers", { workers, shard });
    return changes.map((one) => `Shard ${one.shard}, core group ${one.group}: ${one.from} → ${one.to} workers, pause ${one.pause_ms.toFixed(1)} ms.`).join(" ");
  });
}
