// What the left side shows: the line, large, and the page with the line marked; or the text around the item.

const $ = (id) => document.getElementById(id);

export function node(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// [text, mark] pieces; texts reach the page through textContent alone, never as HTML.
export function pieces(box, found, title) {
  box.replaceChildren();
  if (title) box.append(node("h3", "", title));
  for (const [text, mark] of found) box.append(mark ? node("mark", mark, text) : text);
}

export function clearPane() {
  for (const id of ["line", "noimage", "frame", "context"]) $(id).hidden = true;
  $("page").removeAttribute("src");
}

export function showNoImage(why) {
  $("noimage").textContent = why;
  $("noimage").hidden = false;
}

// `size`: width and height of the page in the unit of the box; tiny pictures are enlarged with their pixels kept sharp.
export async function showImage(blob, size, box) {
  const image = $("page");
  const reader = new FileReader(); // a data: address, which the page's policy allows
  await new Promise((done) => {
    reader.addEventListener("load", done, { once: true });
    reader.readAsDataURL(blob);
  });
  image.src = reader.result;
  await image.decode();
  $("frame").hidden = false;
  $("frame").className = Math.max(...size) < 200 ? "small" : "";
  const mark = $("box");
  mark.hidden = !box;
  if (!box) return;
  const [x0, top, x1, bottom] = box;
  const percent = (part, whole) => `${(100 * part) / whole}%`;
  mark.style.left = percent(x0, size[0]);
  mark.style.top = percent(top, size[1]);
  mark.style.width = percent(x1 - x0, size[0]);
  mark.style.height = percent(bottom - top, size[1]);
  enlarge(image, size, box);
  // Only the pane moves: the question stays where the person looks.
  const pane = $("source");
  const cover = $("line").hidden ? 0 : $("line").clientHeight; // the line stays above
  const middle = $("frame").offsetTop + (image.clientHeight * (top + bottom)) / 2 / size[1];
  pane.scrollTop = Math.max(0, middle - (pane.clientHeight + cover) / 2);
}

// The line, cut out with a margin as high as itself, so that ascenders and neighbours can be seen; a short one with as
// much beside it as makes the cutting four times as wide as high, so that it is not blown up beyond recognition.
function enlarge(image, size, [x0, top, x1, bottom]) {
  const scale = image.naturalWidth / size[0];
  const margin = Math.max(4, (bottom - top) * 0.5);
  const beside = Math.max(margin, (4 * (bottom - top + 2 * margin) - (x1 - x0)) / 2);
  const left = Math.max(0, x0 - beside) * scale;
  const upper = Math.max(0, top - margin) * scale;
  const width = Math.min(size[0], x1 + beside) * scale - left;
  const height = Math.min(size[1], bottom + margin) * scale - upper;
  const canvas = $("line");
  if (width <= 0 || height <= 0) return;
  canvas.width = Math.round(width * 2);
  canvas.height = Math.round(height * 2);
  const draw = canvas.getContext("2d");
  draw.imageSmoothingQuality = "high";
  draw.drawImage(image, left, upper, width, height, 0, 0, canvas.width, canvas.height);
  draw.fillStyle = "rgb(255 190 60 / 25%)"; // which part of it is meant
  draw.fillRect(2 * (x0 * scale - left), 2 * (top * scale - upper), 2 * (x1 - x0) * scale, 2 * (bottom - top) * scale);
  canvas.hidden = false;
}
