// What the kernel has sent and what the person looks at; all views of a widget in the page share one session.
import { Ring, groupSums, join, linesOf } from "./series.js";

const SHORTEST_AXIS = 20; // seconds on the axis at the least, when the stream has just begun
export const MOST_ROWS = 12; // of the table of newest rows
export const SILENT = 4; // seconds without a message after which the kernel counts as gone
const FEW_BEHIND = 100; // events; see _FEW_BEHIND in watched.py
const ASK_AGAIN = 1500; // ms until the kernel is asked once more for everything
const WINDOWS = [10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600, 10800, 43200, 86400]; // seconds

/** Seconds over which shares are taken on an axis of `span` seconds; see share_window in summary.py. */
export const windowOf = (span) => WINDOWS.findLast((seconds) => seconds <= Math.max(10, Math.min(60, span / 4), span / 20));

const numbers = (view) => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

export class Session {
  constructor(model) {
    this.model = model;
    this.config = model.get("config");
    this.views = new Set();
    this.layout = this.state = this.settings = this.facts = null;
    this.labels = [""];
    this.scenarios = [];
    this.faults = [];
    this.marks = [];
    this.asked = [];
    this.rows = [];
    this.lags = [];
    this.countries = this.spots = new Float32Array();
    this.countryNames = [];
    this.span = this.config.span;
    this.range = null; // [from, to] in seconds; null while live
    this.past = null;
    this.pending = null;
    this.refusedPast = null;
    this.heard = performance.now();
    this.lead = null; // seconds that the kernel's time is before performance.now()
    this.version = 0;
    this.asks = 0;
    this.number = null; // of the newest update
    this.askedAgain = -Infinity;
  }

  ask(message) {
    try {
      this.model.send(message);
    } catch { // the kernel is gone: the state shows it
    }
  }

  receive(content, buffers) {
    if (content === this.received) return;
    this.received = content;
    this.heard = performance.now();
    if (content.kind === "update" && !this.follows(content)) return;
    const named = Object.fromEntries((content.buffers ?? []).map((name, i) => [name, buffers[i]]));
    const handle = { update: () => this.update(content, named), past: () => this.takePast(content, named) }[content.kind];
    if (handle) handle();
    else if (content.kind === "refused") this.refuse(content);
    else if (content.kind === "saved") this.notify(content.text);
    else if (content.kind === "code") this.copy(content.text);
    this.version++;
    for (const view of this.views) view.wake();
  }

  /** Whether an update is everything, or the changes since the newest update; if not, everything is asked for. */
  follows(content) {
    const follows = content.whole || (this.number != null && content.number === this.number + 1);
    if (follows) this.number = content.number;
    else this.askAgain();
    return follows;
  }

  askAgain() {
    if (performance.now() - this.askedAgain < ASK_AGAIN) return;
    this.askedAgain = performance.now();
    this.number = null;
    this.ask({ kind: "everything" });
  }

  update(content, named) {
    if (content.layout) {
      const before = this.layout;
      this.layout = content.layout;
      const same = before && ["step", "size", "by", "share"].every((key) => before[key] === content.layout[key])
        && JSON.stringify([before.filters, before.amounts]) === JSON.stringify([content.layout.filters, content.layout.amounts]);
      if (!same) {
        this.ring = new Ring({ step: content.layout.step, size: content.layout.size, amounts: content.layout.amounts.length });
        this.past = this.pending = this.refusedPast = null;
        this.countries = this.spots = new Float32Array();
      }
      this.noun = content.layout.noun;
    }
    for (const name of ["labels", "scenarios", "faults", "marks", "asked", "state", "settings", "facts", "countryNames"]) {
      if (name in content) this[name] = content[name];
    }
    if ("begin" in content) this.ring.begin = content.begin;
    if (named.cells) {
      const [first, count, width] = content.cells;
      this.ring.put(first, count, width, numbers(named.cells));
    }
    if (named.countries) this.countries = numbers(named.countries);
    if (named.spots) this.spots = numbers(named.spots);
    if (content.rows) this.rows = [...content.rows.reverse(), ...(content.allRows ? [] : this.rows)].slice(0, MOST_ROWS);
    if (content.now != null) {
      this.now = content.now;
      const lead = content.now - performance.now() / 1000;
      this.lead = this.lead == null || Math.abs(lead - this.lead) > 0.4 ? lead : this.lead + 0.15 * (lead - this.lead);
    }
  }

  takePast(content, named) {
    if (content.id !== this.pending?.id) return;
    const [first, count, width] = content.cells;
    const data = numbers(named.cells);
    const weights = numbers(named.weights);
    const amounts = this.layout.amounts.length;
    this.past = {
      cut: { step: content.step, first, count, data, amounts, groups: (width - 1 - amounts) / 2, weights: weights.some((w) => w > 1) ? weights : null },
      labels: content.labels, from: first * content.step, to: (first + count) * content.step, asked: this.pending,
      countries: numbers(named.countries), spots: numbers(named.spots), countryNames: content.countryNames,
    };
    this.pending = null;
  }

  refuse(content) {
    if (content.about === "past") {
      this.refusedPast = { ...this.pending, text: content.text };
      this.pending = null;
    } else {
      for (const view of this.views) view.refused(content.text);
    }
  }

  // What is looked at

  silence() {
    return (performance.now() - this.heard) / 1000;
  }
  /** Seconds since 1970 at the right end of the live axis. */
  nowAt() {
    if (this.now == null) return Date.now() / 1000;
    const stopped = ["stopped", "refused", "waiting"].includes(this.state?.[0]) && !this.settings?.reachable;
    return stopped || this.silence() > SILENT ? this.now : Math.max(this.now, this.lead + performance.now() / 1000);
  }
  isLive() {
    return this.range == null;
  }
  begun() {
    if (this.layout?.started != null) return this.layout.started;
    return this.ring?.begin != null ? this.ring.begin * this.ring.step : null;
  }
  rangeNow() {
    if (this.range) return this.range;
    const to = this.nowAt();
    const begun = this.begun() ?? to;
    const from = this.span === "all" ? begun : Math.max(to - this.span, begun);
    return [Math.min(from, to - SHORTEST_AXIS), to];
  }
  setSpan(span) {
    this.span = span;
    this.goLive();
  }
  setSpanLive(seconds) {
    if (this.span !== "all") this.span = seconds;
    this.goLive();
  }
  goLive() {
    this.range = null;
    this.sendView();
  }
  setView([from, to]) {
    const end = this.nowAt();
    const begun = this.begun() ?? from;
    const length = Math.min(Math.max(to - from, 0.5), Math.max(end - begun, SHORTEST_AXIS));
    const start = Math.max(Math.min(from, end - length), Math.min(begun, end - length));
    this.range = [start, start + length];
    this.sendView();
  }
  /** Send the kernel what is looked at: the map, the static image and exports follow. */
  sendView() {
    clearTimeout(this.viewTimer);
    this.viewTimer = setTimeout(() => {
      const range = this.range ?? (this.span === "all" ? this.rangeNow() : null);
      this.ask({ kind: "view", range, span: this.span === "all" ? null : this.span });
    }, 120);
    this.redraw(true);
  }
  toggleFilter(column, label, more = false) {
    const filters = { ...this.layout.filters };
    const now = filters[column] ?? [];
    if (now.includes(label)) filters[column] = now.filter((value) => value !== label);
    else filters[column] = more ? [...now, label] : [label];
    if (!filters[column].length) delete filters[column];
    this.ask({ kind: "filter", value: filters });
  }
  clearFilters() {
    if (Object.keys(this.layout?.filters ?? {}).length) this.ask({ kind: "filter", value: {} });
  }

  // The past

  /** Ask the server for what is older than the ring, unless it is there or on its way. */
  needPast([from, to]) {
    if (!this.layout || this.layout.started == null || !this.settings?.reachable) return;
    const { ring } = this;
    const oldest = ring.begin == null || ring.head == null ? Infinity : ring.oldest(Math.max(ring.head, Math.floor(this.nowAt() / ring.step))) * ring.step;
    const need = Math.max(from, this.layout.started);
    if (need >= oldest - 1.5 * ring.step) return;
    const window = this.layout.window ?? windowOf(to - from);
    const end = Math.min(to, oldest + window, this.now ?? to);
    const fine = Math.max(ring.step, (to - from) / 80);
    const covers = (asked, step) => asked && need >= asked.from - 1e-6 && end <= asked.to + Math.max(2 * step, 0.03 * (to - from)) && step <= 1.01 * fine;
    if (covers(this.past?.asked, this.past?.asked.step)) return;
    const view = this.range ? this.range.join() : `live ${this.span}`;
    if (this.refusedPast?.view === view) return;
    if (this.pending && (this.pending.view === view || performance.now() - this.pending.since < 500)) return;
    this.pending = { id: ++this.asks, view, from: need, to: end, step: Math.max(ring.step, (end - need + window) / 240), since: performance.now() };
    this.ask({ kind: "past", id: this.pending.id, from: need - window, to: end });
  }

  pastNote() {
    if (this.pending) return performance.now() - this.pending.since > 250 ? "asking the server for what is older …" : "";
    if (this.refusedPast) return this.refusedPast.text;
    const [from] = this.rangeNow();
    if (this.past?.cut.weights && this.past.to > from && this.usesPast) return `what is older is a sample of ${this.noun}; the rates are those of all`;
    return "";
  }

  /** The indexes of the groups that are not filtered out; null for all. */
  members(labels = this.labels) {
    const wanted = this.layout.filters[this.layout.by];
    return wanted ? labels.map((label, g) => (wanted.includes(label) ? g : -1)).filter((g) => g >= 0) : null;
  }

  /** Lines and sums over what is looked at. */
  summary([from, to], lineGroups) {
    const { ring, layout, past } = this;
    const window = layout.window ?? windowOf(to - from);
    const totals = layout.amounts.map(([, , total]) => total);
    const stop = Math.min(to, this.now ?? to);
    const head = Math.max(Math.floor((stop - 1e-6) / ring.step), 0);
    const oldest = ring.oldest(Math.max(head, ring.head ?? 0));
    const pieces = [];
    const sums = [];
    let source = { first: oldest, step: ring.step, last: head, cut: (first) => ring.cut(first, head), members: this.members() };
    const shownFrom = Math.floor(from / ring.step);
    // The first windows of the ring are not full: the past, if it reaches so far, is drawn up to there.
    const full = oldest * ring.step + window;
    const seam = past ? Math.max(Math.min(full, past.to), oldest * ring.step) : oldest * ring.step;
    const ringBegins = Math.max(shownFrom, Math.ceil(seam / ring.step)) * ring.step;
    const ringShown = Math.round(ringBegins / ring.step);
    this.usesPast = Boolean(past && past.from < ringBegins && from < ringBegins);
    if (this.usesPast) {
      const { step } = past.cut;
      const first = Math.max(past.cut.first, Math.floor(from / step));
      const last = Math.min(past.cut.first + past.cut.count - 1, Math.floor((Math.min(ringBegins, stop) - 1e-6) / step));
      if (last >= first) {
        const cut = slice(past.cut, last);
        pieces.push(linesOf(cut, { shown: first, stop: Math.min(stop, ringBegins), begin: past.cut.first, window, rateWindow: Math.max(1, step), lines: lineGroups, totals, members: this.members(past.labels), asked: this.asked }));
        sums.push(groupSums(slice(past.cut, last, first)));
        if (head < ringShown) source = { first: past.cut.first, step, last, cut: (begin) => slice(past.cut, last, begin), members: this.members(past.labels) };
      }
    }
    const lead = Math.max(Math.round(window / ring.step), Math.round(10 / ring.step));
    const begin = Math.max(oldest, shownFrom - lead);
    if (ring.begin != null && head >= ringShown) {
      const cut = ring.cut(begin, head);
      pieces.push(linesOf(cut, { shown: Math.max(ringShown - (pieces.length ? 0 : 1), oldest), stop, begin: Math.max(begin, ring.begin), window, lines: lineGroups, totals, members: this.members(), asked: this.asked }));
      sums.push(groupSums(ring.cut(Math.max(ringShown, oldest), head)));
    }
    if (!pieces.length) pieces.push(linesOf({ step: ring.step, first: 0, count: 0, data: new Float32Array(), amounts: totals.length, groups: 1, weights: null }, { shown: 0, stop: 0, begin: 0, window, lines: lineGroups, totals }));
    const groups = this.labels.length;
    const total = { volume: new Float64Array(groups), events: new Float64Array(groups), hits: new Float64Array(groups) };
    for (const part of sums) for (const key of Object.keys(total)) part[key].forEach((value, g) => { if (g < groups) total[key][g] += value; });
    const lines = join(pieces);
    return { lines, sums: total, window, present: this.present(lines, source, { stop, window, totals }) };
  }

  /** When the events last changed (by a scenario), and when those or their number did (rate, pause), up to `stop`. */
  changedAt(stop) {
    const last = (times) => times.findLast((at) => at <= stop) ?? -Infinity;
    const events = last(this.marks.filter(({ kind }) => kind === "scenario").map(({ at }) => at));
    const rates = this.asked.filter(([, rate], i) => i > 0 && rate !== this.asked[i - 1][1]);
    return { events, number: Math.max(events, last(rates.map(([at]) => at))) };
  }

  /**
   * What holds at the end of the lines, taken over the window but not across a change: `share` of shares and means,
   * `sum` of sums per minute. Each has lines whose last values count, the seconds that they are taken over, and
   * whether a change has cut these short. `source` has the cells that end there, of the ring or of the past.
   */
  present(lines, { first: oldest, step, last, cut, members }, { stop, window, totals }) {
    const seconds = this.usesPast || this.ring.begin == null ? window : Math.min(window, Math.max(0, stop - oldest * step));
    const since = (at) => {
      const first = Math.ceil(at / step - 1e-6);
      if (at <= stop - window || first < oldest || first > last + 1 || this.ring.begin == null) return { lines, seconds, changed: false };
      return {
        lines: linesOf(cut(first), { shown: last, stop, begin: first, window, totals, members }),
        seconds: Math.max(0, Math.min(stop, (last + 1) * step) - first * step), changed: true,
      };
    };
    const { events, number } = this.changedAt(stop);
    return { share: since(events), sum: since(number) };
  }

  /** Why the newest figures are missing: the frame is behind the server; null if they are there. */
  missing() {
    const behind = this.facts?.[2];
    const [state] = this.state ?? [];
    if (behind == null || !this.settings) return null;
    if (["connecting", "reconnecting", "stopped"].includes(state)) return state;
    return behind > Math.max(FEW_BEHIND, this.settings.rate) ? "catching up" : null;
  }

  redraw(all = false) {
    if (all) this.version++;
    for (const view of this.views) view.wake();
  }
  notify(text) {
    for (const view of this.views) view.notify(text);
  }
  async copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      this.notify("copied");
    } catch { // a page without the right to the clipboard: show it instead
      this.notify(text);
    }
  }
  toggleProjector() {
    this.projector = !this.projector;
    for (const view of this.views) view.restyle();
    return this.projector;
  }
}

/** The cells `first` to `last` of a cut. */
function slice(cut, last, first = cut.first) {
  const width = 1 + cut.amounts + 2 * cut.groups;
  const count = last - first + 1;
  const skip = first - cut.first;
  return { ...cut, first, count, data: cut.data.subarray(skip * width, (skip + count) * width), weights: cut.weights?.subarray(skip, skip + count) ?? null };
}
