// The review page. No library, no build, no request to anywhere but this server.

import { clearPane, node, pieces, showImage, showNoImage } from "./pane.js";

const $ = (id) => document.getElementById(id);
const KEY = "luthier-review-key";
const NAMES = { corrections: "Corrections", pairs: "Pairs", duplicates: "Duplicates", privacy: "Privacy", labels: "Labels" };
const WORDS = { // what accept and reject mean
  corrections: ["Right as read", "Unreadable"], pairs: ["Accept", "Reject"], duplicates: ["The same", "Different"],
  privacy: ["Personal data", "Not personal"], labels: ["Accept", "Reject"],
};
let state = null; // queues, agreement, what there is to do
let queue = ""; // the chosen one; empty until the first answer
let todo = []; // [queue, id] in order
let at = 0;
let item = null; // the one that is shown
let chosen = new Set(); // labels, where several may be chosen
let busy = false; // a second press while a decision is on its way would decide about an item that nobody saw
let turn = 0; // counts what the person asked for; an answer that comes when something else was asked for is dropped
let work = Promise.resolve(); // that decision; taking it back waits for it

// --- server -----------------------------------------------------------------------------------------------------

async function call(path, body) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ""}` };
  if (body) headers["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The server cannot be reached. Start it again with: luthier review");
  }
  if (reply.status === 401) askForKey(sessionStorage.getItem(KEY) ? "The server does not accept this key." : "");
  if (reply.ok) return reply;
  let said = `The server answered with status ${reply.status}.`;
  try {
    said = (await reply.json()).error.message;
  } catch { /* no JSON: the status says it */ }
  throw new Error(said);
}

const query = (values) => new URLSearchParams(values).toString();
const by = () => $("by").value.trim();
const mode = () => $("mode").value;

function trouble(error) {
  $("problem").textContent = error ? error.message : "";
  $("problem").hidden = !error;
}

function askForKey(problem) {
  $("keyproblem").textContent = problem;
  $("keyfield").value = "";
  if (!$("keydialog").open) $("keydialog").showModal();
  $("keyfield").focus();
}

// --- what there is to do ----------------------------------------------------------------------------------------

async function load({ keep = null } = {}) {
  const mine = ++turn;
  try {
    const found = await (await call(`/api/state?${query({ by: by(), queue, mode: mode() })}`)).json();
    if (mine !== turn) return null;
    state = found;
    if (!queue) {
      queue = state.start_queue || (state.queues.find((one) => one.open) ?? state.queues.find((one) => one.items) ?? state.queues[0]).queue;
      if (!by()) $("by").value = sessionStorage.getItem("luthier-review-by") || state.by;
      return load({ keep });
    }
    todo = state.todo;
    at = keep ? Math.max(0, todo.findIndex(([name, id]) => name === keep[0] && id === keep[1])) : 0;
    trouble(null);
    told();
    await show();
  } catch (error) {
    trouble(error);
  }
  return null;
}

// After a decision only the figures are read anew: the order that the person works in stays.
async function figures(mine) {
  const found = await (await call(`/api/state?${query({ by: by(), queue, mode: mode() })}`)).json();
  if (mine !== turn) return;
  state = found;
  told();
}

function told() {
  $("project").textContent = state.project;
  document.title = `Review ${state.project} – Luthier`;
  const figure = { open: "open", second: "second", conflicts: "conflicts" }[mode()];
  $("queues").replaceChildren(...state.queues.map((one) => {
    const tab = node("button", "", NAMES[one.queue]);
    tab.type = "button";
    tab.append(node("small", "", one.items ? `${one[figure]}` : "–"));
    tab.setAttribute("aria-current", one.queue === queue);
    tab.addEventListener("click", () => choose(one.queue));
    return tab;
  }));
  $("progress").replaceChildren(...[table(), agreement(), next()].filter(Boolean));
  if (state.problems.length) trouble(new Error(state.problems.join("\n")));
}

function table() {
  const rows = state.queues.filter((one) => one.items);
  if (!rows.length) return null;
  const paced = rows.some((one) => one.per_minute);
  return section("Progress", grid(["", "items", "decided", "open", "by you", "conflicts", ...(paced ? ["a minute", "minutes left"] : [])],
    rows.map((one) => [NAMES[one.queue], one.items, one.decided, one.open, one.mine, one.conflicts,
      ...(paced ? [one.per_minute ?? "", one.minutes_left ?? ""] : [])])));
}

function agreement() {
  if (!state.agreement.length) return null;
  const two = (value) => value.toFixed(2);
  const box = section("Agreement between two people", grid(["", "who", "items", "same", "raw", "kappa"], state.agreement.map((one) => [
    NAMES[one.queue], one.people.map((name) => name || "(no name)").join(", "), one.n, one.same, two(one.raw),
    one.kappa === null ? "–" : `${two(one.kappa)} (${one.kappa_interval.map(two).join(" to ")})`])));
  box.append(node("p", "note", "Kappa is agreement beyond chance, with its 95 % interval: 0 is chance, 1 is complete."));
  return box;
}

function next() {
  if (!state.changes.length) return null;
  const list = node("ul");
  for (const line of state.changes) list.append(node("li", "", line));
  return section("What luthier run will now change", list);
}

function section(title, content) {
  const box = node("div");
  box.append(node("h2", "", title), content);
  return box;
}

function grid(head, rows) {
  const made = node("table");
  const top = node("tr");
  for (const name of head) top.append(node("th", "", name));
  made.append(top, ...rows.map((row) => {
    const line = node("tr");
    for (const value of row) line.append(node("td", "", `${value}`));
    return line;
  }));
  return made;
}

function choose(name) {
  queue = name;
  load();
}

// --- one item ---------------------------------------------------------------------------------------------------

async function show() {
  const mine = turn;
  item = null;
  chosen = new Set();
  clearPane();
  const [name, id] = todo[at] ?? [];
  $("work").hidden = !name;
  $("hint").hidden = !!name;
  if (!name) {
    $("hint").textContent = nothing();
    return;
  }
  const found = await (await call(`/api/item?${query({ queue: name, id, mode: mode() })}`)).json();
  if (mine !== turn) return;
  item = found;
  const sure = item.confidence ? `, confidence ${Math.round(100 * item.confidence)} %` : "";
  $("place").textContent = `${at + 1} of ${todo.length}${state.total > todo.length ? ` (of ${state.total})` : ""} · ${item.where}${sure}`;
  $("reason").textContent = item.reason;
  $("reason").hidden = !item.reason;
  const two = item.queue === "duplicates";
  $("text").hidden = item.queue === "pairs" || item.queue === "corrections";
  const [text, around] = two ? [item.context, item.text] : [item.text, item.context]; // text 1 on the left
  pieces($("text"), text, two ? "Text 2" : "");
  if (around.length) {
    pieces($("context"), around, { duplicates: "Text 1", pairs: "Passage" }[item.queue] ?? "Around it");
    $("context").hidden = false;
  }
  $("work").className = item.image || item.context.length ? "" : "alone";
  $("source").hidden = !(item.image || item.context.length);
  said();
  fields();
  choices();
  const words = WORDS[item.queue];
  const proposal = item.queue === "labels" || item.queue === "privacy" ? [item.proposal].flat().join(", ") : "";
  $("accept").querySelector("span").textContent = proposal ? `${words[0]}: ${proposal}` : words[0];
  $("accept").hidden = item.queue === "labels" && !proposal;
  const keeps = item.queue === "labels" && item.given.length;
  $("reject").querySelector("span").textContent = keeps ? `Keep: ${item.given.join(", ")}` : words[1];
  $("edit").hidden = !["corrections", "pairs"].includes(item.queue);
  edit(false);
  $("ask").focus({ preventScroll: true });
  if (item.image) await picture(item);
}

async function picture(shown) {
  try {
    const reply = await call(`/api/image?${query({ queue: shown.queue, id: shown.id })}`);
    const size = reply.headers.get("X-Page-Size").split(",").map(Number);
    const blob = await reply.blob();
    if (item === shown) await showImage(blob, size, shown.box);
  } catch (error) {
    if (item === shown) showNoImage(error.message);
  }
}

function nothing() {
  const one = state.queues.find((entry) => entry.queue === queue);
  if (!state.queues.some((entry) => entry.items)) return "No stage has asked anything yet. Run luthier run, then come back; labels are proposed by luthier label.";
  if (!one.items) return `The queue ${NAMES[queue]} is empty.`;
  return { open: `${NAMES[queue]}: everything is decided.`, second: `${NAMES[queue]}: you have looked at everything that others decided.`,
    conflicts: `${NAMES[queue]}: no two people disagree.` }[mode()];
}

function said() {
  const rows = item.said.map((one, number) => {
    const button = node("button", "", `${one.by || "(no name)"}: ${one.verdict === "reject" ? WORDS[item.queue][1] : one.answer} `);
    button.type = "button";
    button.append(node("kbd", "", `${number + 1}`));
    button.addEventListener("click", () => decide(one.verdict, one.value));
    return button;
  });
  if (item.decided) rows.push(node("p", "note", `Decided by ${item.decided.by || "somebody"}: ${item.decided.answer}`));
  $("said").replaceChildren(...rows);
}

function fields() {
  const wanted = { corrections: [["value", "Text as it was read", [item.proposal].flat().join("") || item.text.map((one) => one[0]).join("")]],
    pairs: [["question", "Question", item.question], ["answer", "Answer", item.answer]] }[item.queue] ?? [];
  $("fields").replaceChildren(...wanted.flatMap(([name, title, value]) => {
    const label = node("label", "", title);
    const area = node("textarea");
    area.id = area.name = name;
    label.htmlFor = name;
    area.value = value;
    area.rows = Math.min(12, Math.max(2, Math.ceil(value.length / 60)));
    area.addEventListener("focus", () => edit(true, area));
    return [label, area];
  }));
}

function edit(on, area) {
  const areas = [...document.querySelectorAll("#fields textarea")];
  for (const one of areas) one.readOnly = !on;
  $("save").hidden = !on && !(item?.queue === "labels" && item.multi);
  $("accept").classList.toggle("primary", !on);
  $("edit").disabled = on;
  if (on && !area) areas[0]?.focus();
  if (!on && areas.includes(document.activeElement)) $("ask").focus({ preventScroll: true });
}

// Likely ones first: proposed, then the model's next ones, then the label that stands there, then all others.
function ordered() {
  const first = [...[item.proposal].flat(), ...(item.top ?? []).map(([label]) => label), ...(item.given ?? [])];
  return [...new Set([...first.filter((one) => item.choices.includes(one)), ...item.choices])];
}

function choices() {
  const many = ["labels", "privacy"].includes(item.queue) && item.choices.length > 0 && !item.said.length;
  $("filter").hidden = !(many && item.choices.length > 9);
  $("filter").value = "";
  if (item.multi && item.queue === "labels") chosen = new Set([item.proposal].flat());
  options();
}

function options() {
  if (!["labels", "privacy"].includes(item.queue) || item.said.length) {
    $("choices").replaceChildren();
    return;
  }
  const wanted = $("filter").value.trim().toLowerCase();
  const shares = new Map(item.top ?? []);
  $("choices").replaceChildren(...ordered().filter((one) => one.toLowerCase().includes(wanted)).map((one, number) => {
    const button = node("button", "", one);
    button.type = "button";
    button.value = one;
    if (shares.has(one)) button.append(node("small", "", `${Math.round(100 * shares.get(one))} %`));
    if (item.given?.includes(one)) button.append(node("small", "", "as it is"));
    if (number < 9) button.append(" ", node("kbd", "", `${number + 1}`));
    if (item.multi) button.setAttribute("aria-pressed", chosen.has(one));
    button.addEventListener("click", () => pick(one));
    return button;
  }));
}

function pick(one) {
  if (item.queue === "labels" && item.multi) {
    if (!chosen.delete(one)) chosen.add(one);
    options();
    return;
  }
  const same = [item.proposal].flat().join() === one;
  decide(same ? "accept" : "edit", item.queue === "labels" ? [one] : one);
}

function value() {
  if (item.queue === "labels") return [...chosen];
  if (item.queue === "pairs") return { question: $("question").value, answer: $("answer").value };
  return $("value").value;
}

// --- deciding ---------------------------------------------------------------------------------------------------

function decide(verdict, value) {
  if (item && !busy) work = send(verdict, value);
}

async function send(verdict, value) {
  if (!by()) {
    trouble(new Error("Write your name into the field “You” first."));
    $("by").focus();
    return;
  }
  busy = true;
  const mine = ++turn;
  const about = item;
  try {
    await call("/api/decide", { queue: about.queue, id: about.id, verdict, value: value ?? null, by: by(), mode: mode() });
  } catch (error) {
    trouble(error);
    busy = false;
    return;
  }
  busy = false;
  const text = { accept: WORDS[about.queue][0], edit: "Edited", reject: WORDS[about.queue][1] }[verdict];
  $("news").textContent = `${text}. u takes it back.`;
  if (mine !== turn) return; // the person went elsewhere meanwhile
  trouble(null);
  todo.splice(at, 1);
  if (at >= todo.length) at = 0;
  try {
    await Promise.all([figures(mine), show()]);
    if (mine === turn && !todo.length && state.total) await load(); // skipped ones, and what came meanwhile
  } catch (error) {
    trouble(error);
  }
}

async function takeBack() {
  await work;
  const mine = ++turn;
  try {
    const back = await (await call("/api/undo", { by: by() })).json();
    $("news").textContent = "Taken back.";
    if (mine !== turn) return; // the person went elsewhere meanwhile
    queue = back.queue;
    await load({ keep: [back.queue, back.id] });
  } catch (error) {
    trouble(error);
  }
}

function move(step) {
  if (!todo.length) return;
  turn += 1;
  at = (at + step + todo.length) % todo.length;
  $("news").textContent = "";
  show().catch(trouble);
}

// --- keys and buttons -------------------------------------------------------------------------------------------

function step(direction) {
  const names = state.queues.map((one) => one.queue);
  choose(names[(names.indexOf(queue) + direction + names.length) % names.length]);
}

const ACTIONS = {
  a: () => !$("accept").hidden && decide("accept"), r: () => decide("reject"), s: () => move(1), ArrowRight: () => move(1),
  ArrowLeft: () => move(-1), u: takeBack, "[": () => step(-1), "]": () => step(1), "?": () => $("keys").showModal(),
  e: () => !$("edit").hidden && edit(true), "/": () => !$("filter").hidden && $("filter").focus(),
  m: () => {
    $("mode").selectedIndex = ($("mode").selectedIndex + 1) % 3;
    load();
  },
};

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || !state) return;
  const typing = event.target.closest("textarea, input, select");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("textarea")) {
    event.preventDefault();
    decide("edit", value());
    return;
  }
  if (typing) {
    if (event.key === "Escape") {
      edit(false);
      $("ask").focus({ preventScroll: true });
    }
    if (event.key === "Enter" && event.target === $("filter")) {
      event.preventDefault();
      $("choices").querySelector("button")?.click();
      if (item?.multi) $("filter").select();
    }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && item?.queue === "labels" && item.multi && !event.target.closest("button")) {
    event.preventDefault();
    decide("edit", value());
    return;
  }
  if (/^[1-9]$/.test(event.key)) {
    const list = item?.said.length ? $("said") : $("choices");
    list.querySelectorAll("button")[Number(event.key) - 1]?.click();
    return;
  }
  const action = ACTIONS[event.key];
  if (action) {
    event.preventDefault();
    action();
  }
});

for (const id of ["accept", "reject"]) $(id).addEventListener("click", () => decide(id));
$("edit").addEventListener("click", () => edit(true));
$("skip").addEventListener("click", () => move(1));
$("undo").addEventListener("click", takeBack);
$("help").addEventListener("click", () => $("keys").showModal());
$("mode").addEventListener("change", () => {
  $("mode").blur();
  load();
});
$("filter").addEventListener("input", options);
$("by").addEventListener("change", () => {
  sessionStorage.setItem("luthier-review-by", by());
  $("by").blur();
  load();
});
$("editor").addEventListener("submit", (event) => {
  event.preventDefault();
  decide("edit", value());
});
$("keyform").addEventListener("submit", () => {
  const key = $("keyfield").value.trim();
  if (key) sessionStorage.setItem(KEY, key);
  load();
});

const given = new URLSearchParams(location.hash.slice(1)).get("key"); // never sent to the server: it is a fragment
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname);
}
load();
