// The lines over one time axis: share, rate, amounts, and below them the strip that goes back to the past.
import { FEWEST, clock, duration, element, exact, groupName, known, percent, setText, short } from "./format.js";
import { pausesOf } from "./series.js";

const HEIGHTS = { share: 126, rate: 50, amounts: 56 }; // px
const STRIP = 18; // px of height
const AXIS = 20; // px for the labels of the time axis
const LONGEST_MARK = 40; // letters of a mark; the tooltip has all
const APART = 90; // px between marks that each get a text
const SHORTEST_MARK = 6; // letters for which there must be room
const MOST_LISTED = 6; // marks in the tooltip
const LEFT = 52; // px for the labels of the values

const gap = (value) => (known(value) ? value : null);
const positive = (value) => (known(value) && value > 0 ? value : null);

/** Positions of the time axis: round steps of clock time. */
export function timeSteps(from, to, most) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000];
  const step = steps.find((value) => (to - from) / value <= most) ?? 31536000;
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  return { step, found };
}

/** Marks (each with its `x`, in order) as groups that get one text: those less than `apart` from each other. */
export function gather(marks, apart) {
  const groups = [];
  for (const { x, text } of marks) {
    const last = groups.at(-1);
    if (last && x - last.to < apart) Object.assign(last, { to: x, count: last.count + 1, text });
    else groups.push({ from: x, to: x, count: 1, text });
  }
  return groups.map(({ from, to, count, text }) => ({ from, to, text: count === 1 ? text : `${count} changes, last ${text}` }));
}

/**
 * Where the text of marks from `from` to `to` has room: right of them up to the next mark, or left of them down to
 * `free`. The text is cut to the larger room if it fits neither; null if that is too small. All in px; `measure`
 * returns the width of a text.
 */
export function placeText({ text, from, to }, { free, next, measure }) {
  const whole = cutText(text, LONGEST_MARK);
  const wide = measure(whole);
  const rooms = { right: next - to, left: from - free };
  const side = wide <= rooms.right ? "right" : wide <= rooms.left || rooms.left > rooms.right ? "left" : "right";
  const letters = Math.floor((whole.length * rooms[side]) / wide);
  if (letters < Math.min(SHORTEST_MARK, whole.length)) return null;
  return { side, text: cutText(whole, letters) };
}

const cutText = (text, letters) => (text.length > letters ? `${text.slice(0, letters - 1)}…` : text);

/** Positions of a logarithmic axis: as many round numbers as have room, at most `most`. */
export function logSteps(from, to, most) {
  let found = [];
  for (const [digits, every] of [[[1, 1.5, 2, 3, 5, 7], 1], [[1, 2, 5], 1], [[1, 3], 1], [[1], 1], [[1], 2], [[1], 3], [[1], 6]]) {
    found = [];
    for (let power = Math.floor(Math.log10(from)); 10 ** power <= to; power++) {
      if (power % every) continue;
      for (const digit of digits) {
        const at = Number((digit * 10 ** power).toPrecision(3));
        if (at >= from && at <= to) found.push(at);
      }
    }
    if (found.length <= most) break;
  }
  return found;
}

/** The axis of shares: fitted to the data with some air, at least eight points wide. */
export function shareRange(low, high, full) {
  if (full || !known(low) || !known(high)) return [0, 1];
  const air = Math.max(0.02, 0.08 * (high - low));
  let [from, to] = [low - air, high + air];
  if (to - from < 0.08) [from, to] = [(from + to) / 2 - 0.04, (from + to) / 2 + 0.04];
  return [Math.max(0, from), Math.min(1, to)];
}

export function timePanel(session, look) {
  const { layout } = session;
  const kinds = [...(layout.share == null ? [] : ["share"]), "rate", ...(layout.amounts.length ? ["amounts"] : [])];
  const hosts = Object.fromEntries(kinds.map((kind) => [kind, element("div", `ls-plot ls-plot-${kind}`)]));
  const heads = {};
  const node = element("section", "ls-panel ls-time", { "aria-label": "Lines over time", tabindex: "0" });
  for (const kind of kinds) {
    const title = element("div", "ls-title");
    const hint = element("span", "ls-hint");
    const head = element("div", "ls-head", {}, title, hint);
    heads[kind] = { title, hint };
    if (kind === "share") {
      head.append(element("button", "ls-link", {
        type: "button", "aria-pressed": "false", title: "Axis fitted to the data, or from 0 to 100 %",
        onclick: (event) => {
          look.full = !look.full;
          event.currentTarget.setAttribute("aria-pressed", String(look.full));
          event.currentTarget.textContent = look.full ? "fit" : "0–100 %";
          session.redraw(true);
        },
      }, "0–100 %"));
    }
    node.append(head, hosts[kind]);
  }
  const tooltip = element("div", "ls-tooltip", { hidden: true, "aria-hidden": "true" });
  const note = element("div", "ls-time-note", { hidden: true });
  const strip = element("canvas", "ls-strip", {
    role: "slider", tabindex: "0", "aria-label": "Stretch of time that is shown; arrows move it, Home returns to live",
  });
  const stripBox = element("div", "ls-strip-box", { title: "The whole stream and its rate: drag to look at what is older" }, strip);
  node.append(tooltip, note, stripBox);

  const plots = {};
  let lines = null;
  let view = null;
  let pointer = null; // px from the left of the plots, while the pointer is over them
  let following = false;
  let axisOfShares = [0, 1];
  let widths = {}; // px, of the plots and of the strip

  const stroke = (name) => () => look.colours[name];
  const base = { points: { show: false }, spanGaps: false };

  function optionsOf(kind, width) {
    const last = kind === kinds[kinds.length - 1];
    const grid = { stroke: stroke("grid"), width: 1 };
    const axis = { stroke: stroke("text"), font: look.font, ticks: { show: false }, grid };
    const groups = look.lineGroups;
    const series = {
      share: [
        { ...base, stroke: "transparent", width: 0 }, { ...base, stroke: "transparent", width: 0 },
        ...groups.map((g) => ({
          ...base, stroke: () => look.lineColour(session.labels[g]), width: (look.highlight === session.labels[g] ? 3 : 1.4) * look.scale,
        })),
        { ...base, stroke: stroke("strong"), width: 2.4 * look.scale },
      ],
      rate: [
        { ...base, stroke: stroke("asked"), width: 1.3 * look.scale, dash: [6, 4], paths: uPlot.paths.stepped({ align: -1 }) },
        { ...base, stroke: stroke("rate"), width: 1.8 * look.scale },
      ],
      amounts: layout.amounts.map((_, k) => ({ ...base, stroke: () => look.colours.groups[2 + k], width: 1.7 * look.scale })),
    }[kind];
    const scale = {
      share: { range: () => axisOfShares },
      rate: { distr: 3, log: 10, range: (_, low, high) => rateRange(low, high) },
      amounts: { range: (_, low, high) => amountRange(low, high) },
    }[kind];
    return {
      width, height: Math.round(HEIGHTS[kind] * look.scale * look.stretch) + (last ? AXIS : 0),
      legend: { show: false },
      padding: [6 * look.scale, 8, last ? 0 : 4, 0],
      cursor: {
        y: false, points: { show: false }, drag: { x: true, y: false, setScale: false, dist: 5 },
        bind: { dblclick: () => () => { session.goLive(); return null; } },
      },
      select: { show: true },
      scales: { x: { time: false }, y: scale },
      axes: [
        {
          ...axis, size: last ? AXIS : 0, space: 60,
          splits: (plot, _, from, to) => timeSteps(from, to, Math.max(2, plot.bbox.width / devicePixelRatio / 84)).found,
          values: (plot, splits) => splits.map((at) => (last && fits(plot, at) ? tickOf(at, splits) : "")),
        },
        {
          ...axis, size: LEFT * look.scale, space: kind === "share" ? 24 : 22, gap: 6,
          ...(kind === "rate" ? { splits: (plot, __, from, to) => logSteps(from, to, Math.max(2, plot.bbox.height / devicePixelRatio / (13 * look.scale))), filter: (_, splits) => splits } : {}),
          ...(kind === "share" ? { incrs: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5] } : {}),
          values: (_, splits) => splits.map((v) => (kind === "share" ? percent(v) : short(v))),
        },
      ],
      series: [{}, ...series],
      bands: kind === "share" ? [{ series: [1, 2], fill: () => look.colours.band }] : [],
      hooks: {
        setCursor: [onCursor],
        setSelect: [onSelect],
        drawClear: [drawPauses],
        draw: [drawMarks],
      },
    };
  }

  /** Whether the label of a time has room before the right edge. */
  const fits = (plot, at) => plot.valToPos(at, "x") < plot.bbox.width / devicePixelRatio - 22 * look.scale;
  const tickOf = (at, splits) => {
    const far = splits.length > 1 && splits[1] - splits[0] >= 86400;
    return far ? clock(at, { date: true }).slice(0, 10) : clock(at);
  };
  function rateRange(low, high) {
    if (low == null || high == null || !(high > 0)) return [0.5, 50];
    const [from, to] = [Math.log10(low), Math.log10(high)];
    const air = Math.max(0.25, (to - from) * 0.12);
    const marked = session.marks.some(({ at }) => at >= view[0] && at <= view[1]); // their texts stand above the lines
    return [10 ** (from - air), 10 ** (to + (marked ? 0.4 * (to - from + air) + air : air))];
  }
  function amountRange(low, high) {
    if (low == null || high == null) return [0, 1];
    if (!layout.amounts.every(([, , total]) => total)) { // means: fitted to the data
      const air = (high - low || Math.abs(high) || 1) * 0.15;
      return [low - air, high + air];
    }
    const from = Math.min(0, low);
    const to = Math.max(0, high);
    const air = (to - from || 1) * 0.08;
    return [from < 0 ? from - air : 0, to > 0 ? to + air : air];
  }

  // Pointer

  function onCursor(plot) {
    if (following) return;
    const left = plot.cursor.left;
    pointer = left == null || left < 0 ? null : left;
    following = true;
    for (const other of Object.values(plots)) if (other !== plot) other.setCursor({ left: pointer ?? -10, top: 5 }, false);
    following = false;
    showTooltip();
  }
  function onSelect(plot) {
    const { left, width } = plot.select;
    if (width < 6) return;
    const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    for (const each of Object.values(plots)) each.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    if (to - from > 0.5) session.setView([from, to]);
  }

  function indexAt(time) {
    if (!lines || !lines.time.length) return -1;
    let [low, high] = [0, lines.time.length - 1];
    if (time < lines.time[0] - 2 || time > lines.time[high] + 2) return -1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (lines.time[middle] < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function showTooltip() {
    const plot = plots[kinds[0]];
    if (pointer == null || !plot || !view) {
      tooltip.hidden = true;
      return;
    }
    const time = plot.posToVal(pointer, "x");
    const i = indexAt(time);
    if (i < 0) {
      tooltip.hidden = true;
      return;
    }
    const rows = [];
    const row = (colour, name, value) => rows.push(element("div", "ls-tip-row", {},
      element("i", "ls-swatch", { style: `background:${colour}` }), element("span", "", {}, name), element("b", "", {}, value)));
    if (layout.share != null) {
      const share = lines.share[i];
      row(look.colours.strong, "all", known(share) ? `${percent(share)} (${percent(lines.low[i])} to ${percent(lines.high[i])})` : `${lines.trials[i]} of ${FEWEST} ${session.noun}`);
      look.lineGroups.forEach((g, k) => {
        if (known(lines.groups[k][i])) row(look.lineColour(session.labels[g]), groupName(session.labels[g]), percent(lines.groups[k][i]));
      });
    }
    row(look.colours.rate, "events/s", short(lines.rate[i]));
    const asked = askedAt(lines.time[i]);
    if (known(asked)) row(look.colours.asked, "asked", asked === 0 ? "paused" : `${exact(asked)}`);
    layout.amounts.forEach(([label, unit, total], k) => row(look.colours.groups[2 + k], label, `${short(lines.amounts[k][i])} ${unit}${total ? "/min" : ""}`));
    const near = session.marks.filter((mark) => Math.abs(mark.at - time) < (view[1] - view[0]) / 60);
    tooltip.replaceChildren(element("div", "ls-tip-time", {}, `${clock(lines.time[i], { date: view[1] - view[0] > 86400 })} UTC`), ...rows,
      ...near.slice(-MOST_LISTED).map((mark) => element("div", "ls-tip-mark", {}, mark.text)),
      ...(near.length > MOST_LISTED ? [element("div", "ls-tip-mark", {}, `and ${near.length - MOST_LISTED} before`)] : []));
    tooltip.hidden = false;
    const x = LEFT * look.scale + pointer;
    const wide = node.clientWidth;
    const own = tooltip.offsetWidth;
    tooltip.style.left = `${x + 16 + own > wide ? Math.max(0, x - own - 12) : x + 14}px`;
    tooltip.style.top = "30px";
  }

  // What is drawn over and under the lines

  const askedAt = (time) => {
    const { asked } = session;
    if (Object.keys(session.layout.filters).length) return NaN;
    let found = NaN;
    for (const [at, rate] of asked) {
      if (at > time) break;
      found = rate;
    }
    return found;
  };

  function drawPauses(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.fillStyle = look.colours.pause;
    for (const [from, to] of pausesOf(session.asked)) {
      const [a, b] = [plot.valToPos(from, "x", true), to === Infinity ? bbox.left + bbox.width : plot.valToPos(to, "x", true)];
      const [x, end] = [Math.max(a, bbox.left), Math.min(b, bbox.left + bbox.width)];
      if (end > x) ctx.fillRect(x, bbox.top, end - x, bbox.height);
    }
    ctx.restore();
  }
  function drawMarks(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio || 1;
    ctx.save();
    ctx.lineWidth = ratio;
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.font = `${10 * ratio * look.scale}px ${look.family}`;
    let free = bbox.left;
    const right = bbox.left + bbox.width;
    const shown = session.marks.map((mark) => ({ ...mark, x: Math.round(plot.valToPos(mark.at, "x", true)) }))
      .filter(({ x }) => x >= bbox.left && x <= right);
    for (const { kind, x } of shown) {
      ctx.strokeStyle = look.colours[{ reconnect: "broken", scenario: "scenario", fault: "fault" }[kind] ?? "mark"];
      ctx.setLineDash(kind === "scenario" || kind === "fault" ? [5 * ratio, 2 * ratio] : [2 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    if (plot === plots.rate) {
      ctx.fillStyle = look.colours.text;
      const measure = (text) => ctx.measureText(text).width + 8 * ratio;
      const groups = gather(shown, APART * ratio * look.scale);
      for (const [i, group] of groups.entries()) {
        const placed = placeText(group, { free, next: groups[i + 1]?.from ?? right, measure });
        free = group.to;
        if (!placed) continue;
        const left = placed.side === "right" ? group.to : group.from - measure(placed.text);
        ctx.fillText(placed.text, left + 4 * ratio, bbox.top + 10 * ratio * look.scale);
        free = Math.max(group.to, left + measure(placed.text));
      }
    }
    ctx.restore();
  }

  // The strip

  let grabbed = null;
  const stripSpan = () => [layout.started, Math.max(session.nowAt(), layout.started + 1)];
  function drawStrip() {
    if (session.layout.started == null || !view) return;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [widths.strip, STRIP * look.scale];
    if (!width) return;
    if (strip.width !== Math.round(width * ratio) || strip.height !== Math.round(height * ratio)) {
      strip.width = Math.round(width * ratio);
      strip.height = Math.round(height * ratio);
      strip.style.height = `${height}px`;
    }
    const draw = strip.getContext("2d");
    draw.setTransform(ratio, 0, 0, ratio, 0, 0);
    draw.clearRect(0, 0, width, height);
    const [from, to] = stripSpan();
    const x = (time) => ((time - from) / (to - from)) * width;
    const rates = session.asked.filter(([, rate]) => rate > 0).map(([, rate]) => Math.log10(rate));
    const [low, high] = [Math.min(...rates, 0) - 0.5, Math.max(...rates, 0) + 0.3];
    draw.fillStyle = look.colours.stripe;
    session.asked.forEach(([at, rate], i) => {
      if (rate === 0) return;
      const end = session.asked[i + 1]?.[0] ?? to;
      const tall = ((Math.log10(rate) - low) / (high - low)) * (height - 3);
      draw.fillRect(x(Math.max(at, from)), height - tall, Math.max(1, x(end) - x(Math.max(at, from))), tall);
    });
    const [a, b] = [Math.max(0, x(view[0])), Math.min(width, x(view[1]))];
    const wide = Math.max(6, b - a);
    const left = Math.min(a, width - wide);
    draw.fillStyle = look.colours.window;
    draw.fillRect(left, 0, wide, height);
    draw.strokeStyle = look.colours.rate;
    draw.lineWidth = 1.5;
    draw.strokeRect(left + 0.75, 0.75, Math.max(2, wide - 1.5), height - 1.5);
    draw.fillStyle = look.colours.strong;
    draw.font = `${10 * look.scale}px ${look.family}`;
    draw.textBaseline = "middle";
    draw.fillText(clock(from, { date: to - from > 43200 }), 5, height / 2 + 0.5);
    draw.textAlign = "right";
    draw.fillText(session.isLive() ? "now" : `now ${clock(to)}`, width - 5, height / 2 + 0.5);
    draw.textAlign = "left";
    const stretch = `${clock(view[0])} to ${clock(view[1])} UTC${session.isLive() ? ", live" : ""}`;
    if (strip.getAttribute("aria-valuetext") !== stretch && performance.now() - (strip.labelledAt ?? 0) > 5000) {
      strip.labelledAt = performance.now();
      strip.setAttribute("aria-valuetext", stretch);
      strip.setAttribute("aria-valuenow", String(Math.round((100 * (view[1] - from)) / (to - from))));
    }
  }
  function grab(event) {
    strip.setPointerCapture(event.pointerId);
    const [from, to] = stripSpan();
    const time = from + (event.offsetX / strip.clientWidth) * (to - from);
    const span = view[1] - view[0];
    // A window that fills the strip could not be moved: take a tenth of it where the hand is.
    const length = span > 0.8 * (to - from) ? (to - from) / 10 : span;
    const inside = time >= view[0] && time <= view[1] && length === span;
    grabbed = { offset: inside ? time - view[0] : length / 2, length };
    move(event);
  }
  function move(event) {
    if (!grabbed) return;
    const [from, to] = stripSpan();
    const time = from + (event.offsetX / strip.clientWidth) * (to - from);
    const start = Math.min(Math.max(from, time - grabbed.offset), to - grabbed.length);
    if (start + grabbed.length >= to - (to - from) / 200) session.setSpanLive(grabbed.length);
    else session.setView([start, start + grabbed.length]);
  }
  strip.addEventListener("pointerdown", grab);
  strip.addEventListener("pointermove", move);
  strip.addEventListener("pointerup", () => { grabbed = null; });
  strip.addEventListener("dblclick", () => session.goLive());
  node.addEventListener("keydown", (event) => {
    if (!view || event.ctrlKey || event.metaKey || event.altKey) return;
    const span = view[1] - view[0];
    const pan = (share) => session.setView([view[0] + share * span, view[1] + share * span]);
    const zoom = (factor) => session.setView([view[1] - span * factor, view[1]]);
    const action = {
      ArrowLeft: () => pan(-0.25), ArrowRight: () => pan(0.25), "+": () => zoom(0.5), "-": () => zoom(2), Home: () => session.goLive(), End: () => session.goLive(),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  });

  // Drawing

  function dataOf(kind) {
    if (kind === "share") {
      return [lines.time, lines.high.map(gap), lines.low.map(gap), ...lines.groups.map((values) => values.map(gap)), lines.share.map(gap)];
    }
    if (kind === "rate") return [lines.time, lines.time.map((time) => positive(askedAt(time))), lines.rate.map(positive)];
    return [lines.time, ...lines.amounts.map((values) => values.map(gap))];
  }

  let signature = "";
  function build(width) {
    for (const plot of Object.values(plots)) plot.destroy();
    for (const kind of kinds) {
      const count = { share: 3 + look.lineGroups.length, rate: 2, amounts: layout.amounts.length }[kind];
      plots[kind] = new uPlot(optionsOf(kind, width), [[0, 1], ...Array.from({ length: count }, () => [null, null])], hosts[kind]);
    }
  }

  function fitShares() {
    let [low, high] = [Infinity, -Infinity];
    for (const values of [lines.low, lines.high, ...lines.groups]) {
      for (let i = 0; i < values.length; i++) {
        if (!known(values[i]) || lines.time[i] < view[0]) continue;
        if (values[i] < low) low = values[i];
        if (values[i] > high) high = values[i];
      }
    }
    axisOfShares = shareRange(low, high, look.full);
  }

  /** Read the widths only when they may have changed: reading makes the browser lay out the page. */
  function measure() {
    if (widths.plot && widths.themed === look.themed) return;
    stripBox.hidden = session.layout.started == null;
    widths = { plot: hosts[kinds[0]].clientWidth, strip: stripBox.clientWidth, themed: look.themed };
  }

  /** Take new lines, or only move the axis if `next` is null. */
  function draw(next, range, windowText) {
    measure();
    const width = widths.plot;
    if (!width) return;
    view = range;
    const wanted = `${look.lineGroups.join()} ${look.scale} ${look.stretch} ${look.themed} ${look.highlight}`;
    const rebuilt = wanted !== signature;
    if (rebuilt) {
      signature = wanted;
      build(width);
      next ??= lines;
    }
    if (next) {
      lines = next;
      fitShares();
      setText(heads.rate.title, Object.keys(session.layout.filters).length ? "Matching events per second" : "Events per second");
      setText(heads.rate.hint, session.asked.length && !Object.keys(session.layout.filters).length ? "dashed: asked for · logarithmic" : "logarithmic");
      if (heads.share) {
        setText(heads.share.title, layout.title);
        setText(heads.share.hint, `${windowText} · thick: all, with 95 % interval${look.lineGroups.length ? ` · coloured: by ${session.layout.by}` : ""}`);
      }
      if (heads.amounts) {
        const units = [...new Set(layout.amounts.map(([, unit, total]) => `${unit}${total ? " per minute" : ""}`))].filter(Boolean);
        heads.amounts.title.replaceChildren(...layout.amounts.flatMap(([label], k) => [
          element("i", "ls-swatch", { style: `background:${look.colours.groups[2 + k]}` }), `${label}  `]));
        setText(heads.amounts.hint, [...(units.length === 1 ? units : []), windowText].join(", "));
      }
    }
    for (const kind of kinds) {
      const plot = plots[kind];
      if (plot.width !== width) plot.setSize({ width, height: plot.height });
      plot.batch(() => {
        if (next) plot.setData(dataOf(kind), false);
        plot.setScale("x", { min: view[0], max: view[1] });
      });
    }
    drawStrip();
    if (pointer != null) showTooltip();
    const text = session.pastNote();
    note.hidden = !text;
    setText(note, text ?? "");
  }

  return {
    node, draw,
    /** For tests: what is on the axis and in the plots. */
    look: () => ({ plots, view, points: lines?.time.length ?? 0, span: view ? duration(view[1] - view[0]) : "" }),
    destroy: () => Object.values(plots).forEach((plot) => plot.destroy()),
  };
}
