// The page of a release with labels. No library, no build, no request to anywhere but this server.
// Texts and labels reach the page only through textContent, never as HTML.

const $ = (id) => document.getElementById(id);
const KEY = "luthier-key";
let card = null; // what /v1/models tells of the release
let image = null; // the chosen file
let busy = false;

function node(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function problemOf(reply) {
  try {
    return (await reply.json()).error.message;
  } catch {
    return `The server answered with status ${reply.status}.`;
  }
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

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
  card = (await reply.json()).data[0];
  const told = card.luthier;
  $("name").textContent = told.release;
  $("version").textContent = `version ${told.version}`;
  document.title = `${told.release} – Luthier`;
  const hints = {
    classify: `Gives a text ${told.multi_label ? "any of" : "one of"} ${told.labels?.length} labels.`,
    image: `Gives an image one of ${told.labels?.length} labels.`,
    tag: `Marks pieces of a text: ${told.labels?.join(", ")}.`,
    embedding: `Makes a vector of ${told.dimensions} numbers of a text. Write two texts, one a line, to compare them.`,
  };
  $("hint").textContent = hints[told.type];
  const explains = told.type === "classify" || told.type === "image";
  for (const id of ["whybox", "method"]) $(id).hidden = !explains;
  $("textbox").hidden = told.type === "image";
  $("drop").hidden = told.type !== "image";
  $("ask").hidden = false;
  ready();
  (told.type === "image" ? $("file") : $("text")).focus();
}

function askForKey(problem) {
  $("keyproblem").textContent = problem;
  $("keyfield").value = "";
  if (!$("keydialog").open) $("keydialog").showModal();
  $("keyfield").focus();
}

function ready() {
  $("send").disabled = busy || !card || (card.luthier.type === "image" ? !image : !$("text").value.trim());
}

// --- asking -----------------------------------------------------------------------------------------------------

async function ask() {
  busy = true;
  ready();
  const type = card.luthier.type;
  const wants = $("why").checked && (type === "classify" || type === "image");
  const explain = wants ? { method: $("method").value, top: 60 } : false;
  const text = $("text").value;
  $("heat").replaceChildren();
  try {
    let reply;
    if (type === "image") {
      const form = new FormData();
      form.append("file", image);
      form.append("explain", JSON.stringify(explain));
      reply = await fetch("/v1/classify", { method: "POST", headers: headers(), body: form });
    } else {
      const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
      const bodies = {
        classify: { input: text, explain }, tag: { input: text },
        embedding: { model: card.id, input: lines },
      };
      const path = { classify: "/v1/classify", tag: "/v1/tag", embedding: "/v1/embeddings" }[type];
      reply = await fetch(path, { method: "POST", headers: { ...headers(), "Content-Type": "application/json" },
        body: JSON.stringify(bodies[type]) });
    }
    if (reply.status === 401) askForKey("The server does not accept this key.");
    if (!reply.ok) throw new Error(await problemOf(reply));
    const found = (await reply.json()).data;
    const box = node("article", "answer");
    if (type === "tag") tagged(box, text, found[0]);
    else if (type === "embedding") compared(box, found);
    else decided(box, text, found[0]);
    $("result").replaceChildren(box);
  } catch (error) {
    const box = node("p", "problem", error.message);
    box.setAttribute("role", "alert");
    $("result").replaceChildren(box);
  }
  busy = false;
  ready();
}

// --- showing ----------------------------------------------------------------------------------------------------

function decided(box, text, found) {
  const title = node("h2");
  if (found.labels) {
    title.textContent = found.labels.map((one) => one.label).join(", ") || "No label applies";
  } else if (found.abstained) {
    title.textContent = "None of these ";
    title.append(node("small", "", `best guess: ${found.best_guess}, ${percent(found.probability)}`));
  } else {
    title.textContent = `${found.label} `;
    title.append(node("small", "", percent(found.probability)));
  }
  box.append(title);
  if (found.truncated) box.append(node("p", "note", "The text is longer than the model reads; its end was left out."));
  const bars = node("div", "bars");
  for (const one of found.top ?? []) {
    const bar = node("progress");
    bar.max = 1;
    bar.value = one.probability;
    bar.setAttribute("aria-label", one.label);
    bars.append(node("span", "", one.label), bar, node("span", "number", percent(one.probability)));
  }
  box.append(bars);
  const why = found.explanation;
  if (why) {
    box.append(node("h3", "", `What speaks for “${why.label}”`));
    if (why.heatmap) heat(why.heatmap);
    else box.append(words(text, why.tokens));
    const legend = node("p", "note legend");
    legend.append(node("span", "for", "for it"), node("span", "against", "against it"));
    if (why.completeness && !why.completeness.holds) legend.append("The parts do not add up exactly; take them as a hint.");
    if (why.heatmap) legend.append("Shown on the image above.");
    box.append(legend);
  }
  trace(box, found.id);
}

function words(text, tokens) {
  const line = node("p", "words");
  const most = Math.max(...tokens.map((token) => Math.abs(token.contribution)), 1e-9);
  let at = 0;
  const characters = [...text]; // the server counts characters, JavaScript counts UTF-16 units
  const piece = (start, end) => characters.slice(start, end).join("");
  for (const token of [...tokens].sort((a, b) => a.start - b.start)) {
    const share = Math.abs(token.contribution) / most;
    line.append(piece(at, token.start));
    const shown = share < 0.1 ? node("span") : node("mark", token.contribution > 0 ? "for" : "against");
    shown.textContent = piece(token.start, token.end);
    if (share >= 0.1) {
      const mix = `color-mix(in srgb, var(--${token.contribution > 0 ? "for" : "against"}) ${Math.round(35 * share)}%, transparent)`;
      shown.style.backgroundColor = mix;
      shown.title = `${token.contribution > 0 ? "+" : ""}${token.contribution.toFixed(2)} log-odds`;
    }
    line.append(shown);
    at = token.end;
  }
  line.append(piece(at));
  return line;
}

function heat(rows) {
  const flat = rows.flat();
  const most = Math.max(...flat.map(Math.abs), 1e-9);
  const layer = $("heat");
  layer.style.gridTemplateColumns = `repeat(${rows[0].length}, 1fr)`;
  layer.replaceChildren(...flat.map((value) => {
    const cell = node("div");
    const name = value > 0 ? "for" : "against";
    cell.style.backgroundColor = `color-mix(in srgb, var(--${name}) ${Math.round((60 * Math.abs(value)) / most)}%, transparent)`;
    return cell;
  }));
}

function tagged(box, text, found) {
  const line = node("p", "words");
  const characters = [...text];
  let at = 0;
  for (const span of found.spans) {
    line.append(characters.slice(at, span.start).join(""));
    const mark = node("mark", "span", characters.slice(span.start, span.end).join(""));
    mark.append(node("b", "", span.label));
    mark.title = percent(span.probability);
    line.append(mark);
    at = span.end;
  }
  line.append(characters.slice(at).join(""));
  box.append(node("h2", "", `${found.spans.length} marked`), line);
  if (found.truncated) box.append(node("p", "note", "The text is longer than the model reads; its end was left out."));
  trace(box, found.id);
}

function compared(box, found) {
  const [first, ...others] = found.map((one) => one.embedding);
  const dot = (a, b) => a.reduce((sum, value, at) => sum + value * b[at], 0);
  box.append(node("h2", "", others.length ? "Likeness to the first line" : "One vector"));
  for (const [at, other] of others.entries()) box.append(node("p", "", `Line ${at + 2}: ${dot(first, other).toFixed(3)}`));
  if (!others.length) box.append(node("p", "note", first.slice(0, 12).map((value) => value.toFixed(3)).join(", ") + " …"));
}

function trace(box, id) {
  const line = node("p", "note", `trace: ${id}`);
  line.title = `luthier trace answer:${id}`;
  box.append(line);
}

// --- images -----------------------------------------------------------------------------------------------------

function choose(file) {
  if (!file || !file.type.startsWith("image/")) return;
  image = file;
  $("heat").replaceChildren();
  $("result").replaceChildren();
  const reader = new FileReader(); // a data: address, which the page's policy allows
  reader.addEventListener("load", () => {
    $("preview").src = reader.result;
    $("preview").hidden = false;
  });
  reader.readAsDataURL(file);
  ready();
}

$("file").addEventListener("change", () => choose($("file").files[0]));
$("drop").addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  choose(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  if (card?.luthier.type === "image") choose(event.clipboardData.files[0]);
});

// --- wiring -----------------------------------------------------------------------------------------------------

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!$("send").disabled) ask();
});
$("text").addEventListener("input", ready);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
$("key").addEventListener("click", () => askForKey(""));
$("keycancel").addEventListener("click", () => $("keydialog").close());
$("keyform").addEventListener("submit", () => {
  const key = $("keyfield").value.trim();
  if (key) sessionStorage.setItem(KEY, key);
  connect();
});

const told = new URLSearchParams(location.hash.slice(1)).get("key"); // never sent to the server: it is a fragment
if (told) {
  sessionStorage.setItem(KEY, told);
  history.replaceState(null, "", location.pathname);
}
connect();
