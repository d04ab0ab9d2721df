"use strict";
// The page's rows: typed arrays by photo number, their orders, and which of them filters leave. No element is touched here.

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
    this.orders = new Map();
    this.runs = this.judges.length > 1 ? this.judges.slice(1) : this.judges;
  }

  isTest(photo) { return photo >= this.labelled; }
  lossOf(judge, photo) { return this.loss[judge * this.labelled + photo]; }
  entropyOf(judge, photo) { return this.entropy[judge * this.count + photo]; }
  saidBy(judge, photo) { return this.said[judge * this.count + photo]; }
  cosineOf(photo, place) { return 2 * this.cosine[photo * this.nearest + place] / 65535 - 1; }
  get nearest() { return this.near.length / this.count; }

  // A run's probability; the first judge is the mean of all runs, where there are several.
  probability(judge, photo, label) {
    const size = this.classes.length, several = this.judges.length > 1;
    const of = run => this.probabilities[(run * this.count + photo) * size + label] / 65535;
    if (!several || judge > 0) return of(several ? judge - 1 : 0);
    return this.runs.reduce((sum, _, run) => sum + of(run), 0) / this.runs.length;
  }

  // What a photo is sorted by.
  value(sort, judge, photo) {
    if (sort === "loss") return this.lossOf(judge, photo);
    return sort === "entropy" ? this.entropyOf(judge, photo) : this.divergence[photo];
  }

  // Photo numbers of a set, largest value first, equal ones by name, as the photos of a set lie.
  order(set, sort, judge) {
    const key = `${set} ${sort} ${judge}`;
    if (this.orders.has(key)) return this.orders.get(key);
    const first = set === "test" ? this.labelled : 0, end = set === "test" ? this.count : this.labelled;
    const made = new Int32Array(end - first), values = new Float32Array(end - first);
    for (let photo = first; photo < end; photo++) made[photo - first] = photo;
    if (sort !== "name") {
      for (let photo = first; photo < end; photo++) values[photo - first] = this.value(sort, judge, photo);
      made.sort((one, other) => values[other - first] - values[one - first] || one - other);
    }
    this.orders.set(key, made);
    return made;
  }

  // The photos that filters leave, in order. What a filter does not ask is "" in `state`.
  left(state) {
    const judge = this.judges.indexOf(state.run), number = name => this.classes.findIndex(each => each[0] === name);
    const label = state.true && number(state.true), says = state.says && number(state.says);
    const driver = state.driver && this.drivers.indexOf(state.driver), part = state.name.toLowerCase();
    const min = state.min === "" ? -Infinity : Number(state.min), max = state.max === "" ? Infinity : Number(state.max);
    const training = state.set === "train";
    return this.order(state.set, state.sort, judge).filter(photo => {
      if (says !== "" && this.saidBy(judge, photo) !== says) return false;
      if (part && !this.names[photo].toLowerCase().includes(part)) return false;
      if (!training) return true;
      if (label !== "" && this.label[photo] !== label) return false;
      if (driver !== "" && this.driver[photo] !== driver) return false;
      if (state.fold !== "" && this.fold[photo] !== Number(state.fold)) return false;
      if (state.wrong && this.saidBy(judge, photo) === this.label[photo]) return false;
      const loss = this.lossOf(judge, photo);
      return loss >= min && loss <= max;
    });
  }
}

// What the address says, or the default where it says nothing; `strange` names what is not on this page.
function stateOf(hash, rows) {
  const asked = new URLSearchParams(hash.replace(/^#/, "")), strange = [];
  const known = {
    set: ["train", "test"], sort: ["loss", "disagreement", "entropy", "name"], run: rows.judges, true: rows.classes.map(each => each[0]),
    says: rows.classes.map(each => each[0]), driver: rows.drivers, fold: rows.folds.map(String), wrong: ["1"],
  };
  const state = {set: "train", sort: "", run: rows.judges[0], true: "", says: "", driver: "", fold: "", min: "", max: "", wrong: "", name: "", photo: ""};
  for (const [key, value] of asked) {
    const number = key === "min" || key === "max";
    const there = key in known ? known[key].includes(value) : number ? value !== "" && Number(value) >= 0 : key in state;
    if (there) state[key] = value;
    else strange.push(`${key}=${value}`);
  }
  return {state: fitting(state, rows), strange};
}

// The same state without what its set cannot be asked: nobody knows the classes, drivers and losses of test photos.
function fitting(state, rows) {
  const sorts = [["loss", state.set === "train" && rows.labelled > 0], ["disagreement", rows.judges.length > 1], ["entropy", true], ["name", true]];
  const allowed = sorts.filter(each => each[1]).map(each => each[0]);
  const made = {...state, sort: allowed.includes(state.sort) ? state.sort : allowed.find(sort => sort !== "disagreement")};
  if (state.set === "test") for (const key of ["true", "driver", "fold", "min", "max", "wrong"]) made[key] = "";
  return made;
}

function hashOf(state, rows) {
  const plain = fitting({set: state.set, sort: "", run: rows.judges[0], photo: ""}, rows), said = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) if (value !== "" && (key === "set" ? value !== "train" : value !== plain[key])) said.set(key, value);
  return `#${said}`;
}
