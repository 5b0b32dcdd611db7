// The cells of the kernel → lines. No DOM here. summary.py does the same for the static image, and a test
// compares the two.
import { FEWEST, wilson } from "./format.js";

const SILENT_INTERVALS = 5; // without an event, after which the rate is called 0
const SHORTEST = 3; // seconds of data that an amount per minute needs

/** Numbers per cell: time of its newest event, amounts, events per group, hits per group. */
export const widthOf = (amounts, groups) => 1 + amounts + 2 * groups;

/** A ring of the newest cells, as the kernel holds it. */
export class Ring {
  constructor({ step, size, amounts }) {
    this.step = step;
    this.size = size;
    this.amounts = amounts;
    this.groups = 1;
    this.begin = null; // number of the oldest complete cell
    this.head = null; // number of the newest cell that was sent
    this.numbers = new Float64Array(size).fill(-1);
    this.data = new Float32Array(size * this.width);
  }

  get width() {
    return widthOf(this.amounts, this.groups);
  }

  /** Make room for more groups. */
  widen(groups) {
    if (groups <= this.groups) return;
    const [old, before, from] = [this.data, this.groups, this.width];
    this.groups = groups;
    const to = this.width;
    this.data = new Float32Array(this.size * to);
    const fixed = 1 + this.amounts;
    for (let i = 0; i < this.size; i++) {
      const [a, b] = [i * from, i * to];
      this.data.set(old.subarray(a, a + fixed + before), b);
      this.data.set(old.subarray(a + fixed + before, a + from), b + fixed + groups);
    }
  }

  /** Take in cells from number `first` on; `flat` holds `count` rows of `width` numbers. */
  put(first, count, width, flat) {
    this.widen((width - 1 - this.amounts) / 2);
    for (let i = 0; i < count; i++) {
      const place = (first + i) % this.size;
      this.numbers[place] = first + i;
      this.data.set(flat.subarray(i * width, (i + 1) * width), place * this.width);
    }
    if (count) this.head = Math.max(this.head ?? first, first + count - 1);
  }

  /** Number of the oldest cell that can be shown, if `newest` is the newest. */
  oldest(newest) {
    return this.begin == null ? newest + 1 : Math.max(this.begin, newest - this.size + 1);
  }

  /** The cells `first` to `last` in a row; those without events are empty. */
  cut(first, last) {
    const { width } = this;
    const count = Math.max(0, last - first + 1);
    const data = new Float32Array(count * width);
    for (let i = 0; i < count; i++) {
      const place = (first + i) % this.size;
      if (this.numbers[place] === first + i) data.set(this.data.subarray(place * width, (place + 1) * width), i * width);
      else data[i * width] = -1;
    }
    return { step: this.step, first, count, data, amounts: this.amounts, groups: this.groups, weights: null };
  }
}

/**
 * Lines over the cells of a cut.
 *
 * `shown`: number of the first cell that gets a point; those before it only fill the windows. `stop`: right
 * end in seconds, which cuts the last cell. `begin`: number of the oldest complete cell. `lines`: groups that
 * get a line. `totals`: for each amount, whether its sum per minute is drawn, else its mean. `members`: groups
 * that are counted as all; every one by default. `asked`: when which rate was asked for, 0 in a pause;
 * pauses do not count as time over which the rate is taken.
 */
export function linesOf(cut, { shown, stop, begin, window, rateWindow = 1, lines = [], totals = [], members = null, asked = [] }) {
  const { step, first, count, data, amounts, groups, weights } = cut;
  const width = widthOf(amounts, groups);
  const w = Math.max(1, Math.round(window / step));
  const rw = Math.max(1, Math.round(rateWindow / step));
  const result = { time: [], rate: [], share: [], low: [], high: [], trials: [], groups: lines.map(() => []), amounts: totals.map(() => []) };
  const offset = 1 + amounts;
  const counted = members ?? Array.from({ length: groups }, (_, g) => g);
  const [events, hits] = [new Float64Array(count + 1), new Float64Array(count + 1)];
  const perGroup = lines.map(() => [new Float64Array(count + 1), new Float64Array(count + 1)]);
  const sums = totals.map(() => new Float64Array(count + 1));
  const weighted = new Float64Array(count + 1);
  const weightedSums = totals.map(() => new Float64Array(count + 1));
  const latest = new Float64Array(count);
  const pauses = pausesOf(asked);
  const pausedBetween = (from, to) => pauses.reduce((sum, [a, b]) => sum + Math.max(0, Math.min(b, to) - Math.max(a, from)), 0);
  let held = NaN;
  let newest = 0;
  for (let i = 0; i < count; i++) {
    const at = i * width;
    let [all, found] = [0, 0];
    for (let m = 0; m < counted.length; m++) {
      all += data[at + offset + counted[m]];
      found += data[at + offset + groups + counted[m]];
    }
    const weight = weights ? weights[i] : 1;
    events[i + 1] = events[i] + all;
    hits[i + 1] = hits[i] + found;
    weighted[i + 1] = weighted[i] + all * weight;
    lines.forEach((g, k) => {
      perGroup[k][0][i + 1] = perGroup[k][0][i] + data[at + offset + g];
      perGroup[k][1][i + 1] = perGroup[k][1][i] + data[at + offset + groups + g];
    });
    totals.forEach((_, k) => {
      sums[k][i + 1] = sums[k][i] + data[at + 1 + k];
      weightedSums[k][i + 1] = weightedSums[k][i] + data[at + 1 + k] * weight;
    });
    if (data[at] >= 0) newest = Math.max(newest, (first + i) * step + data[at]);
    latest[i] = newest;

    const end = Math.min((first + i + 1) * step, stop);
    const from = Math.max(0, i + 1 - w);
    const recent = events[i + 1] - events[Math.max(0, i + 1 - rw)];
    const before = i - rw >= 0 ? latest[i - rw] : 0;
    let rate = NaN;
    if (weights) {
      rate = (weighted[i + 1] - weighted[Math.max(0, i + 1 - rw)]) / (Math.min(rw, i + 1) * step);
    } else {
      if (recent > 0 && before > 0 && newest > before) held = recent / Math.max(newest - before - pausedBetween(before, newest), 1e-6);
      if (recent > 0) rate = held;
      else if (!Number.isNaN(held)) {
        const silence = Math.max(end - newest, 1e-3);
        rate = silence * held > SILENT_INTERVALS ? 0 : Math.min(held, 1 / silence);
      }
    }
    if (first + i < shown) continue;
    const trials = events[i + 1] - events[from];
    const share = trials >= FEWEST ? (hits[i + 1] - hits[from]) / trials : NaN;
    const [low, high] = trials >= FEWEST ? wilson(hits[i + 1] - hits[from], trials) : [NaN, NaN];
    result.time.push(end);
    result.rate.push(rate);
    result.share.push(share);
    result.low.push(low);
    result.high.push(high);
    result.trials.push(trials);
    lines.forEach((_, k) => {
      const [n, h] = perGroup[k];
      const own = n[i + 1] - n[from];
      result.groups[k].push(own >= FEWEST ? (h[i + 1] - h[from]) / own : NaN);
    });
    const lasted = Math.min(window, end - Math.max(first, begin ?? first) * step);
    totals.forEach((total, k) => {
      const sum = sums[k][i + 1] - sums[k][from];
      const wsum = weightedSums[k][i + 1] - weightedSums[k][from];
      if (total) result.amounts[k].push(lasted >= Math.min(SHORTEST, window) ? (wsum * 60) / lasted : NaN);
      else result.amounts[k].push(trials >= FEWEST ? sum / trials : NaN);
    });
  }
  return result;
}

/** Begin and end of each pause, from the rates asked for. */
export function pausesOf(asked) {
  const pauses = [];
  let since = null;
  for (const [at, rate] of asked) {
    if (rate === 0) since ??= at;
    else if (since != null) {
      pauses.push([since, at]);
      since = null;
    }
  }
  if (since != null) pauses.push([since, Infinity]);
  return pauses;
}

/** Events (for volumes: each with its weight), counted events and hits per group over a cut. */
export function groupSums(cut) {
  const { count, data, amounts, groups, weights } = cut;
  const width = widthOf(amounts, groups);
  const [volume, events, hits] = [new Float64Array(groups), new Float64Array(groups), new Float64Array(groups)];
  for (let i = 0; i < count; i++) {
    const at = i * width + 1 + amounts;
    const weight = weights ? weights[i] : 1;
    for (let g = 0; g < groups; g++) {
      events[g] += data[at + g];
      volume[g] += data[at + g] * weight;
      hits[g] += data[at + groups + g];
    }
  }
  return { volume, events, hits };
}

/** Join lines that follow each other in time. */
export function join(pieces) {
  const [head, ...rest] = pieces;
  if (!rest.length) return head;
  const joined = {};
  for (const name of Object.keys(head)) {
    if (name === "groups" || name === "amounts") joined[name] = head[name].map((_, k) => pieces.flatMap((piece) => piece[name][k]));
    else joined[name] = pieces.flatMap((piece) => piece[name]);
  }
  return joined;
}

/** Rows of the groups panel: the most frequent ones by share (by volume without shares), the rest last. */
export function ranked(labels, { volume, events, hits }, { most = 9, shares = true } = {}) {
  const named = labels.map((_, g) => g).filter((g) => g > 0 && events[g] > 0).sort((a, b) => volume[b] - volume[a]);
  const fit = named.length + (events[0] > 0 ? 1 : 0) <= most;
  const kept = fit ? named : named.slice(0, most - 1);
  const rest = fit ? [] : named.slice(most - 1);
  const row = (label, members) => {
    const sum = (values) => members.reduce((total, g) => total + values[g], 0);
    return { label, volume: sum(volume), events: sum(events), hits: sum(hits), members };
  };
  const rows = kept.map((g) => row(labels[g], [g]));
  const share = (r) => (r.events >= FEWEST ? r.hits / r.events : -1);
  rows.sort((a, b) => (shares ? share(b) - share(a) : 0) || b.volume - a.volume);
  const others = [...rest, ...(events[0] > 0 ? [0] : [])];
  if (others.length) rows.push(row("", others));
  return rows;
}
