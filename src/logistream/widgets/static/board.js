// One widget: what the kernel sends is kept in a session, which all its views share; each view draws it.
// uPlot (static/uplot, MIT) and COASTLINE (static/map, Natural Earth, public domain) stand before this module.
import { duration, element, setText } from "./format.js";
import { Ring, groupSums, join, linesOf } from "./series.js";
import { bar } from "./bar.js";
import { tilesPanel } from "./tiles.js";
import { timePanel } from "./time.js";
import { groupsPanel } from "./groups.js";
import { mapPanel } from "./map.js";
import { tablePanel } from "./table.js";

const FRAME = 31; // ms between drawings while the axis scrolls
const SHORTEST_AXIS = 20; // seconds on the axis at the least, when the stream has just begun
const MOST_LINES = 6; // groups that get a line
const MOST_ROWS = 12;
const IMAGE_WAIT = 30000; // ms after which no static image is expected any more

/** Over how many seconds shares are taken on an axis of so many. */
export const windowOf = (span) => Math.max(10, Math.min(60, span / 4), span / 20);

const numbers = (view) => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

/** What the kernel has sent, and what the person looks at. */
class Session {
  constructor(model) {
    this.model = model;
    this.config = model.get("config");
    this.views = new Set();
    this.layout = this.state = this.settings = this.facts = null;
    this.labels = [""];
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
  }

  ask(message) {
    try {
      this.model.send(message);
    } catch { // the kernel is gone, which the state says
    }
  }

  receive(content, buffers) {
    if (content === this.received) return;
    this.received = content;
    this.heard = performance.now();
    const named = Object.fromEntries((content.buffers ?? []).map((name, i) => [name, buffers[i]]));
    const handle = { update: () => this.update(content, named), past: () => this.takePast(content, named) }[content.kind];
    if (handle) handle();
    else if (content.kind === "refused") this.refuse(content);
    else if (content.kind === "saved") this.say(content.text);
    else if (content.kind === "code") this.copy(content.text);
    this.version++;
    for (const view of this.views) view.wake();
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
    for (const name of ["labels", "marks", "asked", "state", "settings", "facts", "countryNames"]) {
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
    const still = ["stopped", "refused", "waiting"].includes(this.state?.[0]) && !this.settings?.reachable;
    return still || this.silence() > 4 ? this.now : Math.max(this.now, this.lead + performance.now() / 1000);
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
    this.tellView();
  }
  setView([from, to]) {
    const end = this.nowAt();
    const begun = this.begun() ?? from;
    const length = Math.min(Math.max(to - from, 0.5), Math.max(end - begun, SHORTEST_AXIS));
    const start = Math.max(Math.min(from, end - length), Math.min(begun, end - length));
    this.range = [start, start + length];
    this.tellView();
  }
  /** Tell the kernel what is looked at: the map, the static image and exports follow. */
  tellView() {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
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
    const end = Math.min(Math.max(to, oldest === Infinity ? to : oldest + window), this.now ?? to);
    const fine = Math.max(ring.step, (to - from) / 80);
    const covers = (asked, step) => asked && need >= asked.from - 1e-6 && Math.min(to, end, oldest + window) <= asked.to + Math.max(2 * step, 0.03 * (to - from)) && step <= 1.01 * fine;
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
    return { lines: join(pieces), sums: total, window };
  }

  redraw(all = false) {
    if (all) this.version++;
    for (const view of this.views) view.wake();
  }
  say(text) {
    for (const view of this.views) view.say(text);
  }
  async copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      this.say("copied");
    } catch { // a page without the right to the clipboard: show it instead
      this.say(text);
    }
  }
  toggleProjector() {
    this.projector = !this.projector;
    for (const view of this.views) view.restyle();
    return this.projector;
  }
}

/** Cells up to number `last` of a cut, from number `first` on. */
function slice(cut, last, first = cut.first) {
  const width = 1 + cut.amounts + 2 * cut.groups;
  const count = last - first + 1;
  const skip = first - cut.first;
  return { ...cut, first, count, data: cut.data.subarray(skip * width, (skip + count) * width), weights: cut.weights?.subarray(skip, skip + count) ?? null };
}

const COLOURS = ["text", "strong", "grid", "band", "rate", "asked", "pause", "mark", "broken", "stripe", "window", "land", "coast", "spot", "unknown", "panel"];

/** Colours, sizes and what is highlighted, as the canvases need them. */
class Look {
  constructor(session) {
    this.session = session;
    this.highlight = null;
    this.full = false;
    this.scale = this.stretch = 1;
    this.themed = 0;
    this.lineGroups = [];
    this.colours = { groups: [] };
  }
  read(node) {
    const style = getComputedStyle(node);
    const colour = (name) => style.getPropertyValue(`--ls-${name}`).trim();
    this.colours = Object.fromEntries(COLOURS.map((name) => [name, colour(name)]));
    this.colours.groups = Array.from({ length: 8 }, (_, i) => colour(`group${i}`));
    this.low = colour("low");
    this.high = colour("high");
    this.middle = colour("middle");
    this.family = style.fontFamily;
    this.scale = this.session.projector ? 1.45 : 1;
    this.font = `${Math.round(11 * this.scale)}px ${this.family}`;
    this.themed++;
  }
  colourOf(label) {
    const place = this.session.labels.indexOf(label);
    return place > 0 && place <= this.colours.groups.length ? this.colours.groups[place - 1] : this.colours.asked;
  }
  lineColour(label) {
    const colour = this.colourOf(label);
    const { filters, by } = this.session.layout;
    const wanted = this.highlight != null ? [this.highlight] : filters[by];
    return wanted && !wanted.includes(label) ? `color-mix(in srgb, ${colour} 35%, transparent)` : colour;
  }
  /** Colour of a share between the lowest (0) and the highest (1). */
  shade(t) {
    return t < 0.5 ? mix(this.low, this.middle, 2 * t) : mix(this.middle, this.high, 2 * t - 1);
  }
}

function mix(from, to, t) {
  const part = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
  return `rgb(${[0, 1, 2].map((i) => Math.round(part(from, i) + t * (part(to, i) - part(from, i)))).join(" ")})`;
}

/** One view of a session in the page. */
function show(session, el) {
  const { parts } = session.config;
  const look = new Look(session);
  const ask = (message) => session.ask(message);
  const head = bar(session, { full: parts.includes("bar"), ask });
  const chips = element("div", "ls-chips", { hidden: true, role: "group", "aria-label": "Filters" });
  const said = element("div", "ls-said", { role: "status", hidden: true });
  const body = element("div", "ls-body");
  const waiting = element("div", "ls-waiting", { hidden: true });
  const root = element("div", "ls-board", { role: "region", "aria-label": parts.includes("time") ? "Live stream" : "Stream controls" }, head.node, chips, said, body, waiting);
  el.replaceChildren(element("div", "ls-root", {}, root));
  let panels = null;
  let built = null;
  let drawnVersion = -1;
  let drawnAt = 0;
  let summary = null;
  let frame = 0;
  let visible = true;
  let closed = false;
  let sayTimer = 0;

  function build() {
    const { layout } = session;
    built = JSON.stringify([layout.share, layout.by == null, layout.amounts, layout.place == null, layout.spots]);
    panels?.time?.destroy();
    panels = {
      tiles: parts.includes("tiles") ? tilesPanel(session, look) : null,
      time: parts.includes("time") ? timePanel(session, look) : null,
      groups: parts.includes("groups") && layout.by != null ? groupsPanel(session, look, ask) : null,
      map: parts.includes("map") && (layout.place != null || layout.spots) ? mapPanel(session, look) : null,
      table: parts.includes("table") ? tablePanel(session) : null,
    };
    const grid = element("div", "ls-grid", { "data-panels": ["groups", "map", "table"].filter((name) => panels[name]).join(" ") },
      ...[panels.time, panels.groups, panels.map, panels.table].filter(Boolean).map((panel) => panel.node));
    body.replaceChildren(...[panels.tiles?.node, grid].filter(Boolean));
  }

  function drawChips() {
    const filters = Object.entries(session.layout?.filters ?? {}).flatMap(([column, labels]) => labels.map((label) => [column, label]));
    const wanted = JSON.stringify(filters);
    if (chips.dataset.filters === wanted) return;
    chips.dataset.filters = wanted;
    chips.hidden = !filters.length;
    chips.replaceChildren(...filters.map(([column, label]) => element("button", "ls-chip", {
      type: "button", "aria-label": `Remove the filter ${column}: ${label}`, onclick: () => session.toggleFilter(column, label),
    }, `${column}: ${label}`, element("span", "", { "aria-hidden": "true" }, " ×"))),
    element("button", "ls-link", { type: "button", onclick: () => session.clearFilters() }, "clear (Esc)"));
  }

  function draw() {
    frame = 0;
    if (closed) return;
    const now = performance.now();
    const fresh = drawnVersion !== session.version;
    const scrolling = session.isLive() && parts.includes("time");
    if (now - drawnAt < FRAME && !(fresh && now - drawnAt >= FRAME)) {
      frame = requestAnimationFrame(draw);
      return;
    }
    if (visible && (fresh || scrolling)) {
      drawnAt = now;
      head.draw();
      if (session.layout && session.ring) drawPanels(fresh);
      drawnVersion = session.version;
      session.frames = (session.frames ?? 0) + 1;
    }
    if (scrolling || drawnVersion !== session.version) frame = requestAnimationFrame(draw);
  }

  function drawPanels(fresh) {
    const { layout } = session;
    if (built !== JSON.stringify([layout.share, layout.by == null, layout.amounts, layout.place == null, layout.spots])) {
      build();
      restyle();
    }
    drawChips();
    const range = session.rangeNow();
    session.needPast(range);
    const windowText = `last ${duration(layout.window ?? windowOf(range[1] - range[0]))}`;
    if (fresh || !summary) {
      const count = layout.share == null || !panels.groups ? 0 : Math.min(MOST_LINES, session.labels.length - 1);
      if (look.lineGroups.length !== count) look.lineGroups = Array.from({ length: count }, (_, i) => i + 1);
      summary = session.summary(range, look.lineGroups);
      panels.tiles?.draw(summary.lines, { windowText, live: session.isLive() });
      const rangeText = session.isLive() ? (session.span === "all" ? "since the begin" : `last ${duration(range[1] - range[0])}`) : "in the view";
      panels.groups?.draw(summary.sums, rangeText);
      const old = session.usesPast && session.past && session.range;
      panels.map?.draw(old ? session.past.countries : session.countries, old ? session.past.countryNames : session.countryNames, old ? session.past.spots : session.spots);
      panels.table?.draw();
      panels.time?.draw(summary.lines, range, windowText);
    } else panels.time?.draw(null, range, windowText);
  }

  function restyle() {
    root.classList.toggle("ls-projector", Boolean(session.projector));
    root.style.setProperty("--ls-scale", session.projector ? 1.45 : 1);
    look.tall = root.clientWidth >= 1800;
    look.stretch = look.tall ? 1.8 : 1;
    look.read(root);
    wake(true);
  }
  function wake(all = false) {
    if (all) drawnVersion = -1;
    frame ||= requestAnimationFrame(draw);
  }
  function say(text) {
    clearTimeout(sayTimer);
    said.hidden = false;
    setText(said, text);
    sayTimer = setTimeout(() => { said.hidden = true; }, 8000);
  }
  function refused(text) {
    head.release();
    if (parts.includes("bar")) session.complain(text);
    else say(text);
    wake(true);
  }

  const resized = new ResizeObserver(() => { if (root.clientWidth) restyle(); });
  resized.observe(root);
  const themed = new MutationObserver(restyle);
  for (const node of [document.body, document.documentElement]) {
    themed.observe(node, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class", "data-theme", "data-vscode-theme-kind"] });
  }
  const seen = new IntersectionObserver(([entry]) => {
    visible = entry.isIntersecting;
    if (visible) wake(true);
  });
  seen.observe(root);
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape") session.clearFilters();
    // JupyterLab has keys of its own, which must not act on a cell while the widget is used.
    event.stopPropagation();
  });
  const ticking = setInterval(() => wake(true), 1000); // the state must be seen to age when the kernel is silent
  const view = { wake, say, refused, restyle, look: () => ({ lines: summary?.lines, sums: summary?.sums, time: panels?.time?.look() }) };
  session.views.add(view);
  root.view = view; // for tests
  root.session = session;
  wake();
  return () => {
    closed = true;
    session.views.delete(view);
    clearInterval(ticking);
    cancelAnimationFrame(frame);
    resized.disconnect();
    themed.disconnect();
    seen.disconnect();
    panels?.time?.destroy();
  };
}

const sessions = new Map();

/** Whether the page hides the static image that follows the widget (the style sheet does, in JupyterLab). */
const hidesImage = (el) => Boolean(el.closest(".jp-OutputArea-child")?.nextElementSibling?.querySelector('img[width="1111"]'));

export default {
  render({ model, el }) {
    const key = model.get("config").key;
    if (!sessions.has(key)) {
      const session = new Session(model);
      const hide = () => { if (document.hidden) session.ask({ kind: "hide" }); };
      document.addEventListener("visibilitychange", hide);
      sessions.set(key, { session, users: 0, end: () => document.removeEventListener("visibilitychange", hide) });
    }
    const shared = sessions.get(key);
    shared.users++;
    // Every view listens, since any may be closed first; the session takes each message once.
    model.on("msg:custom", (content, buffers) => shared.session.receive(content, buffers));
    const id = Math.random().toString(36).slice(2);
    const close = show(shared.session, el);
    model.send({ kind: "open", view: id });
    // The image comes after the widget, and a busy kernel takes its time to draw it.
    const opened = performance.now();
    const look = () => {
      const hidden = hidesImage(el);
      if (!hidden && performance.now() - opened < IMAGE_WAIT) return;
      clearInterval(later);
      shared.session.ask({ kind: "image", hidden });
    };
    const later = shared.session.config.parts.includes("time") ? setInterval(look, 1000) : 0;
    return () => {
      clearInterval(later);
      close();
      shared.session.ask({ kind: "close", view: id });
      shared.users--;
      if (!shared.users) {
        shared.end();
        sessions.delete(key);
      }
    };
  },
};
