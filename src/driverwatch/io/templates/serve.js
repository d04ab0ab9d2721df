"use strict";
const at = (id) => document.getElementById(id);
const largest = Number(at("form").dataset.largest);
let image = null;    // the File that is asked about
let plain = "";      // it, for the browser to show
let mapped = "";     // its class activation map over it
let truth = null;    // of an example: its class, and who has seen its driver
let asked = 0;       // questions so far: an answer to an older one is dropped

function refuse(sentence) {
  at("state").textContent = "";
  at("problem").textContent = sentence;
  at("problem").hidden = false;
}

function take(files, known = null) {
  const [file] = files;
  truth = known;
  if (!file) return refuse("There was no file in that; drop, paste or choose a JPEG, PNG, WebP or AVIF.");
  at("answer").hidden = true;
  image = null;
  asked += 1;
  if (files.length > 1) return refuse(`These are ${files.length} files; one image at a time.`);
  if (file.size > largest) return refuse(`${file.name} is too large; at most ${largest / 2 ** 20} MB are read.`);
  image = file;
  URL.revokeObjectURL(plain);
  plain = URL.createObjectURL(file);
  return ask(null);
}

async function ask(label) {
  const number = ++asked;
  const form = new FormData();
  form.append("image", image, image.name || "pasted");
  if (label) form.append("class", label);
  at("problem").hidden = true;
  at("state").textContent = `Looking at ${image.name || "the image"} …`;
  let said;
  try {
    const response = await fetch("/classify", { method: "POST", body: form });
    said = await response.json();
  } catch {
    said = { problem: "No answer: is make serve still running in its terminal?" };
  }
  if (number !== asked) return;
  if (said.problem) refuse(said.problem);
  else show(said);
}

function show(said) {
  const [best] = said.classes;
  const shown = said.classes.find((one) => one.id === said.shown);
  mapped = said.picture;
  at("state").textContent = "";
  at("verdict").textContent = `${best.name}, ${percent(best.probability)}`;
  at("truth").hidden = !truth;
  if (truth) at("truth").textContent = `${truth.truth === best.name ? "✓ It is" : "✗ It is not; it is"} “${truth.truth}”: ${truth.note}.`;
  at("truth").className = truth && truth.truth === best.name ? "is-right" : "is-wrong";
  for (const [kind, start] of [["traits", "This image:"], ["remarks", "This image is"]]) {
    at(kind).textContent = `${start} ${said[kind].join("; ")}.`;
    at(kind).hidden = said[kind].length === 0;
  }
  at("caption").textContent = `of “${shown.name}”, by ${said.method}`;
  const kept = document.activeElement && document.activeElement.dataset.id;
  at("classes").replaceChildren(...said.classes.map((one) => row(one, one.id === said.shown)));
  if (kept) at("classes").querySelector(`[data-id="${CSS.escape(kept)}"]`).focus();
  at("picture").dataset.name = shown.name;
  turn();
  at("answer").hidden = false;
}

function row(one, pressed) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const [name, share, track, bar] = ["span", "span", "span", "span"].map((tag) => document.createElement(tag));
  name.textContent = one.name;
  share.textContent = percent(one.probability);
  name.className = "name";
  share.className = "share";
  track.className = "track";
  bar.style.width = `${100 * one.probability}%`;
  track.append(bar);
  button.type = "button";
  button.dataset.id = one.id;
  button.setAttribute("aria-pressed", String(pressed));
  button.addEventListener("click", () => ask(one.id));
  button.append(name, share, track);
  item.append(button);
  return item;
}

function percent(share) {
  return `${(100 * share).toFixed(share >= 0.9995 || share < 0.0005 ? 2 : 1)}\u00a0%`;
}

function turn() {
  const heat = at("heat").checked, shown = at("picture");
  at("legend").hidden = !heat;
  shown.src = heat ? mapped : plain;
  shown.alt = heat ? `The image with a class activation map of “${shown.dataset.name}”` : "The image as it was given";
}

async function example(button) {
  const { example: number, suffix, ...known } = button.dataset, question = ++asked;
  const sent = await fetch(`/example/${number}`).catch(() => null), content = sent && sent.ok && await sent.blob();
  if (question !== asked) return; // something else was given meanwhile
  if (!content) return refuse("No answer: is make serve still running in its terminal?");
  take([new File([content], `example ${Number(number) + 1}${suffix}`, { type: sent.headers.get("Content-Type") })], known);
}

for (const button of document.querySelectorAll("[data-example]")) button.addEventListener("click", () => example(button));
at("heat").addEventListener("change", turn);
at("form").addEventListener("submit", (event) => event.preventDefault());
at("image").addEventListener("change", () => { if (at("image").files.length) take([at("image").files[0]]); at("image").value = ""; });
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("dragover", (event) => { event.preventDefault(); at("form").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) at("form").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("form").classList.remove("over");
  take(event.dataTransfer.files);
});
