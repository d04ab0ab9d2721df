"use strict";
// The review page: controls, list and image, each drawn from one state, which the address keeps.

const ROW = 68; // px, as in the style sheet
const byId = id => document.getElementById(id);
const shortly = value => value.toFixed(value < 10 ? 3 : 2);
const whole = value => value.toLocaleString("en");
let rows, state, left, current; // image numbers that are left, and the one that is shown (-1: none)

// An element with properties and children; text is text, whatever is in it.
function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const called = label => rows.classes[label].filter(Boolean).join(" ");
const nameOf = label => rows.classes[label][1] || rows.classes[label][0];
const command = words => made("code", {}, `make ${words} DATASET=${rows.dataset}`);
const judge = () => rows.judges.indexOf(state.run);

function imageURL(image) {
  const test = rows.isTest(image), label = test ? "" : rows.classes[rows.label[image]][0];
  const template = test ? rows.images.test : rows.images.train;
  if (!template) return "";
  const filled = part => part.replace(/\{(label|image)\}/g, (_, field) => field === "label" ? label : rows.names[image]);
  const parts = template.split("/").map(filled);
  return [...rows.images.root.split("/"), ...parts].map(encodeURIComponent).join("/");
}

// A picture by the small one inside of the page, or from the images' folder; `large` the other way round.
function picture(image, alt, large = false) {
  const inside = rows.thumbnails[image], outside = imageURL(image);
  const sources = (large ? [outside, inside] : [inside, outside]).filter(Boolean);
  const picture = made("img", {alt, className: "thumb", decoding: "async", draggable: false});
  const why = large ? ["This image is not there; ", command("review DATA=<folder>"), " looks for it elsewhere."] : [];
  const missing = made("span", {className: "thumb missing"}, ...why);
  picture.onerror = () => { if (sources.length) picture.src = sources.shift(); else picture.replaceWith(missing); };
  if (!sources.length) return missing;
  picture.src = sources.shift();
  return picture;
}

// Words on an image by what a run says of it: right, wrong, or unknown.
function judged(image, by, words) {
  const right = !rows.isTest(image) && rows.saidBy(by, image) === rows.label[image];
  if (rows.isTest(image)) return made("span", {}, words);
  return made("span", {className: right ? "is-right" : "is-wrong"}, `${right ? "✓" : "✗"} ${words}`);
}

function verdict(image) {
  const said = rows.saidBy(judge(), image), truth = rows.isTest(image) ? said : rows.label[image];
  const right = !rows.isTest(image) && truth === said, words = judged(image, judge(), `${right ? "" : "says "}${nameOf(said)}`);
  return truth === said ? [words] : [words, made("span", {className: "soft"}, `is ${nameOf(truth)}`)];
}

// Other images of an image's clip that the list leaves out.
const alike = image => rows.alike.get(image) || 0;

// The list: only what is in sight is there, so that a hundred thousand images are as quick as ten.
function drawList() {
  const list = byId("list"), first = Math.max(0, Math.floor(list.scrollTop / ROW) - 2);
  const end = Math.min(left.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 2);
  byId("rows").style.height = `${left.length * ROW}px`;
  const there = new Map([...byId("rows").children].map(row => [Number(row.dataset.place), row]));
  for (const [place, row] of there) if (place < first || place >= end || Number(row.dataset.image) !== left[place]) { row.remove(); there.delete(place); }
  for (let place = first; place < end; place++) {
    const row = there.get(place) || byId("rows").appendChild(listed(place));
    row.setAttribute("aria-selected", String(left[place] === current));
  }
  const place = left.indexOf(current);
  if (place >= first && place < end) list.setAttribute("aria-activedescendant", `row-${place}`);
  else list.removeAttribute("aria-activedescendant");
}

function listed(place) {
  const image = left[place], driver = rows.isTest(image) ? "" : rows.drivers[rows.driver[image]];
  const value = state.sort === "name" ? "" : shortly(rows.value(state.sort, judge(), image));
  const more = alike(image) ? made("span", {className: "soft", title: "alike: other images of this clip"}, `+${alike(image)}`) : "";
  const words = made("span", {}, made("span", {className: "file"}, rows.names[image]), ...verdict(image));
  const row = made("div", {id: `row-${place}`, className: "row", role: "option"}, picture(image, ""), words, made("span", {className: "value"}, made("span", {}, value), made("span", {className: "soft"}, driver), more));
  row.style.top = `${place * ROW}px`;
  Object.assign(row.dataset, {place, image});
  row.setAttribute("aria-setsize", left.length);
  row.setAttribute("aria-posinset", place + 1);
  return row;
}

// The image and all that is known of it.
function drawImage() {
  const box = byId("image");
  byId("grid").setAttribute("aria-pressed", String(state.view === "grid"));
  if (current >= 0 && state.view === "grid") return drawGrid();
  if (current < 0) return box.replaceChildren(made("p", {className: "problem"}, "No image is left under these filters; Reset shows all."));
  const name = rows.names[current], test = rows.isTest(current);
  const alt = `Image ${name}${test ? ", a test image" : `: ${called(rows.label[current])}`}`;
  const large = made("figure", {}, ...layers(alt));
  const keys = mapOf(shownLabel()) ? [made("button", {type: "button", id: "veil", ariaPressed: String(veiled), onclick: () => veil()}, "Activation map (h)")] : [];
  const note = alike(current) ? made("button", {type: "button", id: "alike", onclick: unfold}, `+${alike(current)} alike: show the clip`) : "";
  large.append(made("figcaption", {}, ...keys, note, legend()));
  box.replaceChildren(
    made("h2", {id: "file"}, name), made("div", {className: "shown"}, large, facts(test)),
    made("h3", {}, "Probabilities"), made("p", {className: "soft"}, mapsNote()),
    made("div", {className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Probabilities"}, probabilities(test)),
    made("h3", {}, "Nearest images"), neighbours(test));
}

// The class activation map over the image: of the class that was clicked, or the one that the run says.
let veiled = false, mapped = -1; // whether it is shown, and of which class (-1: what the run says)
const shownLabel = () => mapped < 0 ? rows.saidBy(judge(), current) : mapped;
function mapOf(label) {
  const maps = (rows.maps[current] || []).filter(map => map.label === label);
  return maps.find(map => map.run === state.run) || maps[0];
}

function layers(alt) {
  const map = veiled && mapOf(shownLabel()), parts = [picture(current, alt, true)];
  if (!map) return parts;
  parts[0].classList.add("grey");
  return [made("div", {className: "veiled"}, ...parts, made("img", {className: "veil", src: map.picture, alt: `Class activation map of ${called(map.label)}`}))];
}

function legend() {
  const map = veiled && mapOf(shownLabel());
  if (!map) return "";
  const by = map.folds.length > 1 ? `mean of ${map.folds.length} fold models` : `fold model ${map.folds[0]}`;
  return made("p", {className: "soft"}, made("span", {className: "scale"}, "least", made("i"), "most"), ` evidence for “${called(map.label)}”; ${map.run}, ${by}, by ${map.by}.`);
}

function veil(label = -1) {
  if (label >= 0 && !mapOf(label)) return;
  if (label < 0) veiled = !veiled && Boolean(mapOf(shownLabel()));
  else { veiled = !(veiled && shownLabel() === label); mapped = label; }
  drawImage();
}

function mapsNote() {
  const some = Object.keys(rows.maps).length;
  if (rows.maps[current]) return made("span", {}, "Click a class to see its activation map over the image.");
  if (some) return made("span", {}, `Activation maps were made of ${some} images at the head of the lists, not of this one; `, command("review N_CAMS=<count>"), " makes more.");
  return made("span", {}, command("review N_CAMS=60"), " adds class activation maps of 60 images at the head of each list.");
}

function unfold() {
  const driver = rows.drivers[rows.driver[current]], label = rows.classes[rows.label[current]][0];
  state = fitting({...state, true: label, driver, clips: "0"}, rows);
  show();
  apply(true);
}

// Many images at once: of a confusion, say. A click shows one.
const GRID = 60;
function drawGrid() {
  const buttons = [...left.slice(0, GRID)].map(image => {
    const more = alike(image) ? `+${alike(image)} alike` : "";
    const button = made("button", {type: "button", title: rows.names[image]}, picture(image, `Image ${rows.names[image]}`), ...verdict(image), made("span", {className: "soft"}, more));
    button.onclick = () => { state.view = ""; go(image, true); byId("image").focus(); };
    return button;
  });
  const rest = left.length > GRID ? `, the first ${GRID}` : "";
  byId("image").replaceChildren(made("h2", {}, `${counted()}${rest}`), made("div", {className: "near many"}, ...buttons));
}

function facts(test) {
  const said = rows.saidBy(judge(), current), found = test ? [["set", "test: class unknown"]] : [["true class", called(rows.label[current])]];
  found.push([`${state.run} says`, judged(current, judge(), called(said))]);
  if (!test) found.push(["driver", rows.drivers[rows.driver[current]]], ["fold", String(rows.fold[current])], ["loss", shortly(rows.lossOf(judge(), current))]);
  found.push(["entropy", shortly(rows.entropyOf(judge(), current))]);
  if (rows.judges.length > 1) found.push(["disagreement", shortly(rows.divergence[current])]);
  return made("dl", {}, ...found.flatMap(([term, text]) => [made("dt", {}, term), made("dd", {}, text)]));
}

function probabilities(test) {
  const judges = rows.judges.map((_, place) => place), truth = test ? -1 : rows.label[current];
  const line = (label, cells, className = "") => {
    const of = rows.classes.findIndex((_, place) => called(place) === label), there = of >= 0 && mapOf(of);
    const head = made("th", {scope: "row"}, there ? made("button", {type: "button", className: "class", ariaPressed: String(veiled && shownLabel() === of), onclick: () => veil(of)}, label) : label);
    if (className === "true") head.append(made("span", {className: "mark"}, "✓ true"));
    return made("tr", {className}, head, ...cells);
  };
  const plain = (label, text) => line(label, judges.map(each => made("td", {}, text(each))));
  const body = rows.classes.map((_, label) => line(called(label), judges.map(each => {
    const share = rows.probability(each, current, label), bar = made("i"), says = rows.saidBy(each, current) === label;
    bar.style.width = `${100 * share}%`;
    const digits = made("span", {className: "digits"}, `${says ? "▸ " : ""}${(100 * share).toFixed(1)} %`);
    const wrongly = says && !test && label !== truth;
    return made("td", {className: wrongly ? "wrongly" : ""}, made("span", {className: "cell"}, made("span", {className: "meter"}, bar), digits));
  }), label === truth ? "true" : ""));
  const foot = [plain("entropy", each => shortly(rows.entropyOf(each, current)))];
  if (!test) foot.unshift(plain("says", each => judged(current, each, nameOf(rows.saidBy(each, current)))), plain("loss", each => shortly(rows.lossOf(each, current))));
  const heads = ["class", ...rows.judges].map(text => made("th", {scope: "col"}, text));
  return made("table", {className: "probabilities"}, made("thead", {}, made("tr", {}, ...heads)), made("tbody", {}, ...body, ...foot));
}

function neighbours(test) {
  if (!rows.near) return made("p", {className: "soft"}, "No embeddings are there to compare images by; ", command("review EMBEDDINGS=own"), " computes the first run's.");
  const found = [...rows.near.subarray(current * rows.nearest, (current + 1) * rows.nearest)].filter(image => image >= 0);
  const of = image => test ? rows.saidBy(judge(), image) : rows.label[image];
  const buttons = found.map((image, place) => {
    const same = of(image) === of(current), words = `${same ? "✓ same" : "✗ other"}: ${test ? "says " : ""}${nameOf(of(image))}`;
    const driver = test ? "" : rows.drivers[rows.driver[image]];
    const button = made("button", {type: "button", title: rows.names[image]}, picture(image, `Image ${rows.names[image]}`), made("span", {className: same ? "is-right" : "is-wrong"}, words),
      made("span", {}, [driver, `cosine ${rows.cosineOf(current, place).toFixed(3)}`].filter(Boolean).join(" · ")));
    button.onclick = () => go(image, true);
    return button;
  });
  const where = test ? "among test images" : "among images of its fold";
  const note = found.length ? `By ${rows.features}, ${where}; click one to see it.` : `Alone ${where}.`;
  return made("div", {}, made("p", {className: "soft"}, note), made("div", {className: "near"}, ...buttons));
}

// State, and what of it the address and the controls show.
const keep = push => history[push ? "pushState" : "replaceState"](null, "", hashOf(state, rows));

function go(image, push = false) {
  if (image !== current) mapped = -1;
  current = image;
  state.image = image < 0 ? "" : rows.names[image];
  keep(push);
  drawImage();
  drawCount();
  const list = byId("list"), top = left.indexOf(image) * ROW;
  if (top >= 0 && (top < list.scrollTop || top + ROW > list.scrollTop + list.clientHeight)) list.scrollTop = top - (list.clientHeight - ROW) / 2;
  drawList();
}

const many = (number, what) => `${whole(number)} ${what}${number === 1 ? "" : "s"}`;
const counted = () => `${many(rows.unfolded, "image")}${rows.unfolded > left.length ? ` of ${many(left.length, "clip")}` : ""}`;

function drawCount() {
  const place = left.indexOf(current), all = rows.order(state.set, "name", 0).length;
  byId("count").textContent = `${place < 0 ? "–" : whole(place + 1)} of ${whole(left.length)}${left.length < all ? ` (all: ${whole(all)})` : ""}`;
  byId("previous").disabled = place <= 0 && !(place < 0 && left.length && current >= 0);
  byId("next").disabled = !left.length || place === left.length - 1;
  byId("active").textContent = rows.unfolded > left.length ? `${counted()} left` : `${whole(left.length)} of ${many(all, "image")} left`;
}

function step(by) {
  state.view = "";
  const place = left.indexOf(current), next = place < 0 ? 0 : Math.min(left.length - 1, Math.max(0, place + by));
  if (left.length && next !== place) go(left[next]);
}

function apply(push) {
  const started = performance.now();
  left = rows.left(state);
  const asked = state.image === "" ? -1 : rows.names.indexOf(state.image);
  byId("rows").replaceChildren();
  Object.assign(byId("list"), {scrollTop: 0}).style.maxHeight = `${left.length * ROW + 2}px`; // 2: its border
  go(left.includes(asked) || (asked >= 0 && push === "kept") ? asked : left.length ? left[0] : -1, push === true);
  document.documentElement.dataset.filtered = (performance.now() - started).toFixed(1);
}

function show() { // the state in the controls
  for (const control of byId("filters").elements) {
    if (!(control.name in state)) continue;
    if (control.name === "clips") control.checked = state.clips !== "0";
    else if (control.type === "checkbox") control.checked = state[control.name] === "1";
    else if (control.value.replace(",", ".") !== state[control.name]) control.value = state[control.name];
    control.disabled = state.set === "test" && ["true", "driver", "fold", "min", "max", "wrong", "doubted", "clips"].includes(control.name);
  }
  const back = byId("back");
  back.href = `${back.pathname ? back.getAttribute("href").split("#")[0] : ""}${state.from ? `#${state.from}` : ""}`;
  for (const option of byId("sort").options) option.disabled = fitting({...state, sort: option.value}, rows).sort !== option.value;
}

function read() { // from the address
  const found = stateOf(location.hash, rows);
  state = found.state;
  if (state.image && !rows.names.includes(state.image)) { found.strange.push(`image=${state.image}`); state.image = ""; }
  byId("notice").hidden = !found.strange.length;
  byId("notice").textContent = `The address asks for what is not on this page and was left out: ${found.strange.join(", ")}.`;
  show();
  apply("kept");
}

let typed = null; // the field that was written in last: its letters are one entry of the history
function change(control) {
  const number = control.inputMode === "decimal", text = control.type === "search" || number, again = text && typed === control;
  typed = text ? control : null;
  const value = number ? control.value.trim().replace(",", ".") : control.value; // a decimal comma is one
  if (number) control.setCustomValidity(/^(\d+\.?\d*|\.\d+)?$/.test(value) ? "" : "A loss is a number such as 1.5 or 1,5.");
  if (number && !control.reportValidity()) return;
  if (control.name === "set" && state.sort !== "name" && state.sort !== "disagreement") state.sort = ""; // each set's own: loss, or entropy
  state = fitting({...state, [control.name]: control.type === "checkbox" ? (control.checked ? "1" : control.name === "clips" ? "0" : "") : value}, rows);
  if (["set", "sort", "run"].includes(control.name)) state.image = ""; // another order begins at its head; a filter keeps the image
  byId("notice").hidden = true;
  show();
  apply(!again);
}

function reset() {
  state = stateOf(`#set=${state.set}&clips=${state.clips || 1}`, rows).state;
  typed = null;
  show();
  apply(true);
}

function gridded() {
  state.view = state.view === "grid" ? "" : "grid";
  keep(true);
  drawImage();
}

function toggle(id) {
  const control = byId(id);
  if (control.disabled) return;
  if (control.type === "checkbox") control.checked = !control.checked;
  else control.value = control.value === "train" ? "test" : "train";
  change(control);
}

const KEYS = {
  j: () => step(1), ArrowRight: () => step(1), k: () => step(-1), ArrowLeft: () => step(-1), g: () => step(-Infinity), G: () => step(Infinity),
  h: () => veil(), v: () => gridded(), w: () => toggle("wrong"), t: () => toggle("set"), r: reset, "?": () => byId("keys").showModal(),
  "/": () => { byId("panel").open = true; byId("name").focus(); },
};
const IN_LIST = {ArrowDown: () => step(1), ArrowUp: () => step(-1), Home: () => step(-Infinity), End: () => step(Infinity)};

function press(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || byId("keys").open) return;
  const field = event.target.closest("input:not([type=checkbox]), select");
  if (field && event.key === "Escape") return field.blur();
  const act = !field && (KEYS[event.key] || (event.target.id === "list" && IN_LIST[event.key]));
  if (!act || (event.key.startsWith("Arrow") && event.target.closest(".scroll"))) return;
  event.preventDefault();
  act();
}

function begin() {
  rows = new Rows(JSON.parse(byId("data").textContent));
  byId("clips").closest("label").hidden = !rows.labelled;
  byId("doubted").closest("label").hidden = !rows.doubted.size;
  for (const fold of rows.folds) byId("fold").append(made("option", {}, String(fold)));
  if (matchMedia("(max-width: 47.99rem)").matches) byId("panel").open = false;
  const typing = target => target.matches("[type=search], [inputmode=decimal]"); // each letter counts; other controls, once they are done
  byId("filters").addEventListener("input", event => { if (typing(event.target)) change(event.target); });
  let pointed = false; // a list that was chosen from by pointer gives the keys back
  byId("filters").addEventListener("pointerdown", () => { pointed = true; });
  addEventListener("keydown", () => { pointed = false; }, {capture: true});
  byId("filters").addEventListener("change", event => {
    if (!typing(event.target)) change(event.target);
    if (pointed && event.target.matches("select")) event.target.blur();
  });
  byId("filters").addEventListener("submit", event => event.preventDefault());
  byId("filters").addEventListener("reset", event => { event.preventDefault(); reset(); });
  byId("previous").onclick = () => step(-1);
  byId("next").onclick = () => step(1);
  byId("grid").onclick = gridded;
  let from = null; // a swipe across the image, on a phone
  byId("image").addEventListener("touchstart", event => { from = event.target.closest(".scroll") ? null : event.touches[0]; }, {passive: true});
  byId("image").addEventListener("touchend", event => {
    const [to] = event.changedTouches, across = from ? to.clientX - from.clientX : 0;
    if (Math.abs(across) > 50 && Math.abs(across) > 2 * Math.abs(to.clientY - from.clientY)) step(across < 0 ? 1 : -1);
    from = null;
  });
  byId("help").onclick = () => byId("keys").showModal();
  byId("list").onclick = event => { const row = event.target.closest(".row"); if (row) go(Number(row.dataset.image)); };
  byId("list").addEventListener("scroll", () => requestAnimationFrame(drawList), {passive: true});
  addEventListener("resize", drawList);
  addEventListener("keydown", press);
  addEventListener("popstate", () => { typed = null; read(); });
  read();
  document.documentElement.dataset.ready = performance.now().toFixed(0);
}

requestAnimationFrame(() => setTimeout(begin)); // after the first paint
