// The live dashboard: two charts over one time axis, bars per group, a status line.
// The kernel sends whole pictures, never differences; the newest one wins and is drawn with the next frame.
// `uPlot` (static/uplot, MIT) is put in front of this file by dashboard.py: nothing is loaded from elsewhere.

const SHORTEST = 20; // seconds on the time axis at the least
const NUMBER = new Intl.NumberFormat("en-US");
const CLOCK = { timeZone: "UTC", hour12: false, hour: "2-digit", minute: "2-digit", second: "2-digit" };
const CLOCK_FORMAT = new Intl.DateTimeFormat("en-GB", CLOCK);

const clock = (seconds) => CLOCK_FORMAT.format(new Date(seconds * 1000));
const known = (value) => value != null && Number.isFinite(value);
const percent = (share) => `${(100 * share).toFixed(0)} %`;

function rateText(rate) {
  if (!known(rate)) return "–";
  if (rate >= 100) return NUMBER.format(Math.round(rate));
  return rate >= 10 ? rate.toFixed(1) : rate.toFixed(2);
}

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children);
  return node;
}

/** A panel with a headline: what it shows, and its present value in large. */
function panel(title, hint) {
  const value = element("output", "ls-value", "–");
  const note = element("span", "ls-note");
  const body = element("div", "ls-body");
  const head = element(
    "div",
    "ls-head",
    element("div", "ls-title", title, element("span", "ls-hint", hint)),
    element("div", "ls-figures", value, note),
  );
  return { node: element("section", "ls-panel", head, body), body, value, note };
}

/** The theme's colours as the canvas needs them; read again whenever the theme changes. */
function readColours(node) {
  const style = getComputedStyle(node);
  const colour = (name) => style.getPropertyValue(name).trim();
  return {
    text: colour("--ls-text"),
    grid: colour("--ls-grid"),
    rate: colour("--ls-rate"),
    asked: colour("--ls-asked"),
    share: colour("--ls-share"),
    band: colour("--ls-band"),
    font: `11px ${style.fontFamily}`,
  };
}

/** One uPlot chart in `body`; `onCursor(index or null)` tells where the pointer is. */
function chart(body, look, { series, bands = [], range, tick, height, times, sync, onCursor }) {
  const axis = { stroke: () => look.colours.text, font: look.colours.font, ticks: { show: false } };
  const grid = { stroke: () => look.colours.grid, width: 1 };
  const options = {
    width: Math.max(body.clientWidth, 120),
    height,
    legend: { show: false },
    padding: [8, 10, times ? 0 : 6, 0],
    cursor: { sync: { key: sync }, drag: { x: false, y: false }, y: false, points: { size: 7 } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: { x: { time: true }, y: { range } },
    axes: [
      {
        ...axis,
        grid,
        size: times ? 26 : 0,
        space: 84,
        values: (_, splits) => splits.map((split) => (times ? clock(split) : "")),
      },
      { ...axis, grid, size: 46, space: 30, values: (_, splits) => splits.map(tick) },
    ],
    series: [{}, ...series],
    bands,
    hooks: { setCursor: [(plot) => onCursor(plot.cursor.idx ?? null)] },
  };
  const now = Date.now() / 1000; // an empty chart has its axes too
  return new uPlot(options, [[now - SHORTEST, now], ...series.map(() => [null, null])], body);
}

/** Rows of bars, part of each bar in the colour of the hits; rows are kept between updates. */
function bars(body, words) {
  const rows = new Map();
  const table = element("div", "ls-bars");
  body.append(table);
  if (words.title == null) table.classList.add("ls-plain");
  else body.append(
    element("div", "ls-words", element("i", "ls-swatch ls-hit"), words.hit, element("i", "ls-swatch ls-rest"), words.rest),
  );
  return (labels, events, hits) => {
    const longest = Math.max(1, ...events);
    for (const [label, row] of rows) if (!labels.includes(label)) rows.delete(label) && row.node.remove();
    labels.forEach((label, place) => {
      if (!rows.has(label)) {
        const [hit, rest] = [element("i", "ls-hit"), element("i", "ls-rest")];
        const text = element("span", "ls-count");
        const name = element("span", "ls-label", label);
        name.title = label;
        rows.set(label, { node: element("div", "ls-row", name, text, element("div", "ls-bar", hit, rest)), hit, rest, text });
      }
      const row = rows.get(label);
      if (table.children[place] !== row.node) table.insertBefore(row.node, table.children[place] ?? null);
      row.hit.style.width = `${(100 * hits[place]) / longest}%`;
      row.rest.style.width = `${(100 * (events[place] - hits[place])) / longest}%`;
      row.text.textContent = NUMBER.format(events[place]);
      if (words.title != null) row.text.textContent += ` · ${percent(hits[place] / Math.max(events[place], 1))} ${words.hit}`;
    });
  };
}

/**
 * Build the dashboard in `el`; returns `show(picture)` and `destroy()`.
 * A table without a column of yes and no has no `config.title`, one without texts no `config.by`.
 */
function build(el, config) {
  const rate = panel("Events per second", "");
  const share = panel(config.title, `last ${config.shareWindow} s, 95 % interval`);
  const groups = panel(config.by, `last ${config.spanText}`);
  rate.node.querySelector(".ls-hint").append(
    element("i", "ls-key ls-key-rate"), "measured ", element("i", "ls-key ls-key-asked"), "asked");
  if (!config.asks) rate.node.querySelector(".ls-hint").textContent = "";
  const status = element("div", "ls-status", element("b", "ls-dot"), element("span", "", "waiting"), element("span", "ls-axis", "time in UTC"));
  const root = element(
    "div",
    "ls-dashboard ls-empty",
    element("div", "ls-charts", rate.node, ...(config.title == null ? [] : [share.node])),
    ...(config.by == null ? [] : [element("div", "ls-side", groups.node)]),
    status,
  );
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Live stream dashboard");
  el.replaceChildren(element("div", "ls-root", root));

  const look = { colours: readColours(root) }; // empty until the view is in the page; see `restyle`
  const line = (name, extra = {}) => ({
    stroke: () => look.colours[name], width: 2, points: { show: false }, spanGaps: false, ...extra,
  });
  const sync = `logistream-${Math.random().toString(36).slice(2)}`;
  let picture = null;
  let pointed = null;
  const onCursor = (index) => {
    pointed = index;
    headlines();
  };
  const plots = [
    chart(rate.body, look, {
      series: [
        line("asked", { dash: [5, 4], width: 1.5, paths: uPlot.paths.stepped({ align: -1 }) }),
        line("rate"),
      ],
      range: (_, __, high) => [0, niceTop(high)],
      tick: (value) => NUMBER.format(value),
      height: config.title == null ? 200 : 150,
      times: config.title == null,
      sync,
      onCursor,
    }),
    chart(share.body, look, {
      series: [
        line("band", { width: 0 }),
        line("band", { width: 0 }),
        line("share"),
      ],
      bands: [{ series: [1, 2], fill: () => look.colours.band }],
      range: () => [0, 1],
      tick: (value) => percent(value),
      height: 166,
      times: true,
      sync,
      onCursor,
    }),
  ];
  const drawBars = bars(groups.body, config);

  function headlines() {
    if (!picture) return;
    const { series, head } = picture;
    const last = series.time.length - 1;
    const at = pointed == null || pointed > last ? last : pointed;
    const asked = series.asked[at];
    rate.value.textContent = rateText(series.rate[at]);
    rate.note.textContent = known(asked) ? (asked === 0 ? "paused" : `asked ${rateText(asked)}`) : "";
    const half = (series.high[at] - series.low[at]) / 2;
    share.value.textContent = known(series.share[at]) ? percent(series.share[at]) : "–";
    share.note.textContent = known(half) ? `± ${Math.max(1, Math.round(100 * half))} %` : "";
    const when = pointed == null ? `newest event ${head.newest ? clock(head.newest) : "–"}` : `pointer at ${clock(series.time[at])}`;
    status.children[1].textContent =
      `${head.state} · ${NUMBER.format(head.total)} events seen · ${NUMBER.format(head.rows)} in the frame · ${when}`;
    status.children[0].dataset.state = head.state;
  }

  function show(next) {
    picture = next;
    root.classList.toggle("ls-empty", next.head.total === 0);
    const s = next.series;
    const to = s.time[s.time.length - 1];
    const begun = s.time[Math.max(0, s.share.findIndex(known))];
    const from = Math.max(s.time[0], Math.min(begun, to - SHORTEST)); // grows to the full span
    for (const [plot, data] of [
      [plots[0], [s.time, s.asked, s.rate]],
      [plots[1], [s.time, s.high, s.low, s.share]],
    ]) {
      plot.batch(() => {
        plot.setData(data.map(gaps), false);
        plot.setScale("x", { min: from, max: to });
      });
    }
    drawBars(next.head.labels, next.events, next.hits);
    groups.value.textContent = NUMBER.format(next.events.reduce((sum, count) => sum + count, 0));
    groups.note.textContent = "events";
    headlines();
  }

  const restyle = () => {
    look.colours = readColours(root);
    plots.forEach((plot) => plot.redraw(false, true));
  };
  const resized = new ResizeObserver(() => {
    const width = rate.body.clientWidth;
    if (width === 0) return; // hidden
    plots.forEach((plot) => plot.setSize({ width, height: plot.height }));
    restyle();
  });
  resized.observe(root);
  const themed = new MutationObserver(restyle);
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });

  return {
    show,
    destroy() {
      resized.disconnect();
      themed.disconnect();
      plots.forEach((plot) => plot.destroy());
    },
  };
}

/** uPlot marks a gap by null; the kernel by NaN. */
const gaps = (values) => Array.from(values, (value) => (Number.isNaN(value) ? null : value));

/** Top of the rate axis: the next of 1, 2, 5, 10, ... with a little air, so that it seldom jumps. */
function niceTop(high) {
  const wanted = 1.1 * Math.max(high ?? 2, 0.5);
  const decade = 10 ** Math.floor(Math.log10(wanted));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * decade).find((top) => top >= wanted);
}

/** Message and buffers from the kernel → a picture. Buffers: series (n × 6) and groups (m × 2), float64. */
function decode(head, buffers) {
  const numbers = (view) => {
    const bytes = view.buffer ?? view;
    return new Float64Array(bytes.slice(view.byteOffset ?? 0, (view.byteOffset ?? 0) + view.byteLength));
  };
  const rows = (flat, names) => {
    const n = flat.length / names.length;
    return Object.fromEntries(names.map((name, i) => [name, flat.subarray(i * n, (i + 1) * n)]));
  };
  return {
    head,
    series: rows(numbers(buffers[0]), ["time", "asked", "rate", "share", "low", "high"]),
    ...rows(numbers(buffers[1]), ["events", "hits"]),
  };
}

export default {
  render({ model, el }) {
    let board = build(el, model.get("config"));
    const view = Math.random().toString(36).slice(2);
    let waiting = null;
    let frame = 0;
    const draw = () => {
      frame = 0;
      if (waiting) board.show(decode(...waiting));
      waiting = null;
    };
    const receive = (message, buffers) => {
      waiting = [message, buffers];
      frame ||= requestAnimationFrame(draw);
    };
    const rebuild = () => {
      board.destroy();
      board = build(el, model.get("config"));
    };
    model.on("msg:custom", receive);
    model.on("change:config", rebuild);
    model.send({ view, open: true });
    return () => {
      model.off("msg:custom", receive);
      model.off("change:config", rebuild);
      cancelAnimationFrame(frame);
      model.send({ view, open: false });
      board.destroy();
    };
  },
};
