// The chat page of `luthier serve`. No library, no build, no request to anywhere but this server.
// Text from the model and from documents reaches the page only through textContent, never as HTML.

const $ = (id) => document.getElementById(id);
const KEY = "luthier-key";
const conversation = []; // {role, content}, as the API wants it
let running = null; // the AbortController of the answer being written
const names = { base: "base model", retrieval: "base + documents", tuned: "tuned model",
  tuned_retrieval: "tuned + documents" };

function node(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

function say(text) { $("status").textContent = text; }

// --- connection -------------------------------------------------------------------------------------------------

async function connect() {
  let reply;
  try {
    reply = await fetch("/v1/models", { headers: headers() });
  } catch {
    $("hint").textContent = "The server cannot be reached. Trying again …";
    setTimeout(connect, 3000);
    return;
  }
  if (reply.status === 401) {
    $("hint").textContent = "This server asks for its API key.";
    askForKey(sessionStorage.getItem(KEY) ? "The server does not accept this key." : "");
    return;
  }
  if (reply.status === 503) {
    $("hint").textContent = "The model is loading …";
    setTimeout(connect, 1500);
    return;
  }
  if (!reply.ok) {
    $("hint").textContent = await problemOf(reply);
    return;
  }
  const models = (await reply.json()).data.filter((model) => model.luthier.type === "chat");
  const chosen = models.find((model) => model.luthier.default);
  const picker = $("model");
  picker.replaceChildren(...models.filter((model) => !model.luthier.default).map((model) => {
    const best = model.luthier.model === chosen.luthier.model;
    const name = names[model.luthier.model] ?? model.id;
    const option = node("option", "", best ? `${name} (recommended)` : name);
    option.value = model.id;
    option.selected = best;
    return option;
  }));
  picker.disabled = false;
  const { release, version } = models[0].luthier;
  $("name").textContent = release;
  $("version").textContent = `version ${version}`;
  document.title = `${release} – Luthier chat`;
  $("hint").textContent = "Answers come from the model chosen above; where it reads your documents, the passages stand below the answer.";
  $("send").disabled = false;
  $("question").focus();
}

function askForKey(problem) {
  $("keyproblem").textContent = problem;
  $("keyfield").value = "";
  if (!$("keydialog").open) $("keydialog").showModal();
  $("keyfield").focus();
}

async function problemOf(reply) {
  try {
    return (await reply.json()).error.message;
  } catch {
    return `The server answered with status ${reply.status}.`;
  }
}

// --- asking -----------------------------------------------------------------------------------------------------

async function ask(question) {
  $("welcome").hidden = true;
  conversation.push({ role: "user", content: question });
  $("log").append(node("article", "turn user", question));
  const turn = node("article", "turn assistant");
  const text = node("div", "text");
  text.setAttribute("aria-busy", "true");
  turn.append(text);
  $("log").append(turn);
  toEnd(true);
  busy(true);
  say("Answering …");
  running = new AbortController();
  const answer = { text: "", citations: [], finish: "", usage: null, system: "" };
  let problem = "";
  try {
    const reply = await fetch("/v1/chat/completions", {
      method: "POST", headers: headers(), signal: running.signal,
      body: JSON.stringify({ model: $("model").value, messages: conversation, stream: true,
        stream_options: { include_usage: true } }),
    });
    if (reply.status === 401) askForKey("The server does not accept this key.");
    if (!reply.ok) throw new Error(await problemOf(reply));
    for await (const data of events(reply.body)) {
      if (data.error) throw new Error(data.error.message);
      if (data.usage) answer.usage = data.usage;
      const choice = data.choices?.[0];
      if (!choice) continue;
      answer.id = data.id;
      if (data.luthier) answer.system = data.luthier.model;
      if (choice.delta.citations) answer.citations = choice.delta.citations;
      if (choice.finish_reason) answer.finish = choice.finish_reason;
      if (choice.delta.content) {
        answer.text += choice.delta.content;
        paint(text, answer.text, []);
        toEnd(false);
      }
    }
  } catch (error) {
    problem = error.name === "AbortError" ? "" : error.message;
    if (error.name === "AbortError") answer.finish = "stopped";
  }
  running = null;
  text.removeAttribute("aria-busy");
  paint(text, answer.text, answer.citations);
  if (answer.citations.length) turn.append(sources(answer.citations));
  if (problem) {
    const box = node("p", "problem", problem);
    box.setAttribute("role", "alert");
    turn.append(box);
  }
  turn.append(meta(answer));
  if (answer.text) conversation.push({ role: "assistant", content: answer.text });
  else conversation.pop(); // nothing came: the question may be asked again
  say(problem ? "" : answer.finish === "stopped" ? "Stopped." : `Answer: ${answer.text}`);
  busy(false);
  toEnd(false);
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      if (!block.startsWith("data: ")) continue;
      const data = block.slice(6);
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function busy(now) {
  $("send").hidden = now;
  $("stop").hidden = !now;
  $("model").disabled = now;
  if (now) $("stop").focus(); else $("question").focus();
}

function toEnd(always) {
  const log = $("log");
  if (always || log.scrollHeight - log.scrollTop - log.clientHeight < 120) log.scrollTop = log.scrollHeight;
}

// --- showing ----------------------------------------------------------------------------------------------------

function paint(into, source, citations) {
  const blocks = [];
  let list = null;
  let code = null;
  let lines = [];
  const close = () => {
    if (lines.length) {
      const paragraph = node("p");
      lines.forEach((line, at) => {
        if (at) paragraph.append(node("br"));
        inline(paragraph, line, citations);
      });
      blocks.push(paragraph);
    }
    lines = [];
    list = null;
  };
  for (const line of source.split("\n")) {
    if (line.trimStart().startsWith("```")) {
      if (code) code = null;
      else {
        close();
        code = node("code");
        const frame = node("pre");
        frame.append(code);
        blocks.push(frame);
      }
      continue;
    }
    if (code) {
      code.append(line + "\n");
      continue;
    }
    const item = line.match(/^\s*(?:([-*•])|(\d+)[.)])\s+(.*)$/);
    const heading = line.match(/^#{1,6}\s+(.*)$/);
    if (item) {
      const tag = item[1] ? "ul" : "ol";
      if (!list || list.tagName.toLowerCase() !== tag) {
        close();
        list = node(tag);
        if (item[2]) list.start = Number(item[2]);
        blocks.push(list);
      }
      const entry = node("li");
      inline(entry, item[3], citations);
      list.append(entry);
    } else if (heading) {
      close();
      const title = node("h3");
      inline(title, heading[1], citations);
      blocks.push(title);
    } else if (line.trim() === "") close();
    else {
      if (list) close();
      lines.push(line);
    }
  }
  close();
  into.replaceChildren(...blocks);
}

function inline(into, line, citations) {
  const known = new Set(citations.map((citation) => citation.n));
  for (const part of line.split(/(\*\*[^*]+\*\*|`[^`]+`|\[\d{1,3}\])/)) {
    if (/^\*\*.+\*\*$/.test(part)) into.append(node("strong", "", part.slice(2, -2)));
    else if (/^`.+`$/.test(part)) into.append(node("code", "", part.slice(1, -1)));
    else if (/^\[\d+\]$/.test(part) && known.has(Number(part.slice(1, -1)))) {
      const link = node("a", "ref", part);
      link.href = "#";
      link.setAttribute("aria-label", `Source ${part.slice(1, -1)}`);
      link.addEventListener("click", (event) => {
        event.preventDefault();
        const box = link.closest(".turn").querySelector(`details[data-n="${part.slice(1, -1)}"]`);
        box.open = true;
        box.classList.add("flash");
        setTimeout(() => box.classList.remove("flash"), 900);
        box.querySelector("summary").focus();
      });
      into.append(link);
    } else if (part) into.append(part);
  }
}

function sources(citations) {
  const box = node("section", "sources");
  box.setAttribute("aria-label", "Sources");
  const cited = citations.filter((citation) => citation.cited).length;
  box.append(node("h3", "", cited ? `Passages the model read (${cited} cited)` : "Passages the model read"));
  for (const citation of citations) {
    const entry = node("details", citation.cited ? "cited" : "");
    entry.dataset.n = citation.n;
    const where = citation.page ? `, page ${citation.page}` : citation.line ? `, line ${citation.line}` : "";
    const summary = node("summary");
    summary.append(node("b", "", `[${citation.n}]`), `${citation.path}${where} `);
    if (citation.heading.length) summary.append(node("span", "", citation.heading.join(" › ")));
    entry.append(summary, node("div", "passage", citation.text));
    box.append(entry);
  }
  return box;
}

function meta(answer) {
  const line = node("div", "meta");
  const ends = { length: "cut at the length limit", stopped: "stopped" };
  if (answer.system) line.append(node("span", "", names[answer.system] ?? answer.system));
  if (ends[answer.finish]) line.append(node("span", "", ends[answer.finish]));
  if (answer.usage) line.append(node("span", "", `${answer.usage.completion_tokens} tokens`));
  if (answer.id) {
    const id = node("span", "", `trace: ${answer.id}`);
    id.title = `luthier trace answer:${answer.id}`;
    line.append(id);
  }
  if (answer.text) {
    const copy = node("button", "", "Copy");
    copy.type = "button";
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(answer.text);
      say("Copied.");
      copy.textContent = "Copied";
    });
    line.append(copy);
  }
  return line;
}

// --- wiring -----------------------------------------------------------------------------------------------------

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || running || $("send").disabled) return;
  $("question").value = "";
  grow();
  ask(question);
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
$("question").addEventListener("input", grow);
$("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
});
$("new").addEventListener("click", () => {
  running?.abort();
  conversation.length = 0;
  document.querySelectorAll(".turn").forEach((turn) => turn.remove());
  $("welcome").hidden = false;
  $("question").focus();
});
$("key").addEventListener("click", () => askForKey(""));
$("keycancel").addEventListener("click", () => $("keydialog").close());
$("keyform").addEventListener("submit", () => {
  const key = $("keyfield").value.trim();
  if (key) sessionStorage.setItem(KEY, key);
  connect();
});

function grow() {
  const field = $("question");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

const told = new URLSearchParams(location.hash.slice(1)).get("key"); // never sent to the server: it is a fragment
if (told) {
  sessionStorage.setItem(KEY, told);
  history.replaceState(null, "", location.pathname);
}
connect();
