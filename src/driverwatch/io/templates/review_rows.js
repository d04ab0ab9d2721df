"use strict";
// The page's rows: typed arrays by image number, their orders, and which of them filters leave. No element is touched here.

function unpacked(made) {
  if (Uint8Array.fromBase64) return new globalThis[made.type](Uint8Array.fromBase64(made.data).buffer);
  const text = atob(made.data), bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return new globalThis[made.type](bytes.buffer);
}

class Rows {
  constructor(data) { // what `content` in report/review.py gives
    for (const [key, value] of Object.entries(data)) this[key] = value && value.type ? unpacked(value) : value;
    this.count = this.names.length;
    this.folds = [...new Set(this.fold)].sort((one, other) => one - other);
    this.doubted = new Set(this.doubted); // on the list of `make label-issues`
    this.orders = new Map();
    this.runs = this.judges.length > 1 ? this.judges.slice(1) : this.judges;
  }

  isTest(image) { return image >= this.labelled; }
  lossOf(judge, image) { return this.loss[judge * this.labelled + image]; }
  entropyOf(judge, image) { return this.entropy[judge * this.count + image]; }
  saidBy(judge, image) { return this.said[judge * this.count + image]; }
  cosineOf(image, place) { return 2 * this.cosine[image * this.nearest + place] / 65535 - 1; }
  get nearest() { return this.near.length / this.count; }

  // A run's probability; the first judge is the mean of all runs, where there are several.
  probability(judge, image, label) {
    const size = this.classes.length, several = this.judges.length > 1;
    const of = run => this.probabilities[(run * this.count + image) * size + label] / 65535;
    if (!several || judge > 0) return of(several ? judge - 1 : 0);
    return this.runs.reduce((sum, _, run) => sum + of(run), 0) / this.runs.length;
  }

  // What an image is sorted by.
  value(sort, judge, image) {
    if (sort === "loss") return this.lossOf(judge, image);
    return sort === "entropy" ? this.entropyOf(judge, image) : this.divergence[image];
  }

  // Image numbers of a set, largest value first, equal ones by name, as the images of a set lie.
  order(set, sort, judge) {
    const key = `${set} ${sort} ${judge}`;
    if (this.orders.has(key)) return this.orders.get(key);
    const first = set === "test" ? this.labelled : 0, end = set === "test" ? this.count : this.labelled;
    const made = new Int32Array(end - first), values = new Float32Array(end - first);
    for (let image = first; image < end; image++) made[image - first] = image;
    if (sort !== "name") {
      for (let image = first; image < end; image++) values[image - first] = this.value(sort, judge, image);
      made.sort((one, other) => values[other - first] - values[one - first] || one - other);
    }
    this.orders.set(key, made);
    return made;
  }

  // The images that filters leave, in order. What a filter does not ask is "" in `state`.
  left(state) {
    const judge = this.judges.indexOf(state.run), number = name => this.classes.findIndex(each => each[0] === name);
    const label = state.true && number(state.true), says = state.says && number(state.says);
    const driver = state.driver && this.drivers.indexOf(state.driver), part = state.name.toLowerCase();
    const min = state.min === "" ? -Infinity : Number(state.min), max = state.max === "" ? Infinity : Number(state.max);
    const training = state.set === "train";
    const found = this.order(state.set, state.sort, judge).filter(image => {
      if (says !== "" && this.saidBy(judge, image) !== says) return false;
      if (part && !this.names[image].toLowerCase().includes(part)) return false;
      if (!training) return true;
      if (label !== "" && this.label[image] !== label) return false;
      if (driver !== "" && this.driver[image] !== driver) return false;
      if (state.fold !== "" && this.fold[image] !== Number(state.fold)) return false;
      if (state.wrong && this.saidBy(judge, image) === this.label[image]) return false;
      if (state.doubted && !this.doubted.has(image)) return false;
      const loss = this.lossOf(judge, image);
      return loss >= min && loss <= max;
    });
    return this.onePerClip(found, training && state.clips !== "0");
  }

  // The first image of each clip, a driver's images of a class; `alike` counts the others by that image.
  onePerClip(found, folded) {
    this.alike = new Map();
    this.unfolded = found.length;
    if (!folded) return found;
    const first = new Map();
    return found.filter(image => {
      const clip = this.driver[image] * this.classes.length + this.label[image];
      if (!first.has(clip)) return first.set(clip, image);
      this.alike.set(first.get(clip), (this.alike.get(first.get(clip)) || 0) + 1);
      return false;
    });
  }
}

// What the address says, or the default where it says nothing; `strange` names what is not on this page.
function stateOf(hash, rows) {
  const asked = new URLSearchParams(hash.replace(/^#/, "")), strange = [];
  const known = {
    set: ["train", "test"], sort: ["loss", "disagreement", "entropy", "name"], run: rows.judges, true: rows.classes.map(each => each[0]),
    says: rows.classes.map(each => each[0]), driver: rows.drivers, fold: rows.folds.map(String), wrong: ["1"], clips: ["1", "0"],
    doubted: rows.doubted.size ? ["1"] : [],
    view: ["grid"], from: ["verdict", "drivers", "confusions"], // the section of the report that led here
  };
  const state = {set: "train", sort: "", run: rows.judges[0], true: "", says: "", driver: "", fold: "", min: "", max: "", wrong: "", doubted: "", clips: "", name: "", image: "", view: "", from: ""};
  for (const [key, value] of asked) {
    const number = key === "min" || key === "max";
    const there = key in known ? known[key].includes(value) : number ? value !== "" && Number(value) >= 0 : key in state;
    if (there) state[key] = value;
    else strange.push(`${key}=${value}`);
  }
  return {state: fitting(state, rows), strange};
}

// The same state without what its set cannot be asked: classes, drivers and losses of test images are unknown.
function fitting(state, rows) {
  const sorts = [["loss", state.set === "train" && rows.labelled > 0], ["disagreement", rows.judges.length > 1], ["entropy", true], ["name", true]];
  const allowed = sorts.filter(each => each[1]).map(each => each[0]);
  const made = {...state, sort: allowed.includes(state.sort) ? state.sort : allowed.find(sort => sort !== "disagreement")};
  if (state.set === "test") for (const key of ["true", "driver", "fold", "min", "max", "wrong", "doubted"]) made[key] = "";
  if (made.clips === "1") made.clips = ""; // as without a word
  return made;
}

function hashOf(state, rows) {
  const plain = fitting({set: state.set, sort: "", run: rows.judges[0], image: ""}, rows), said = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) if (value !== "" && (key === "set" ? value !== "train" : value !== plain[key])) said.set(key, value);
  return `#${said}`;
}
