// The widget in the page: each view draws what its session holds.
// uPlot (static/uplot, MIT) and COASTLINE (static/map, Natural Earth, public domain) stand before this module.
import { duration, element, setText } from "./format.js";
import { Session, windowOf } from "./session.js";
import { Look } from "./look.js";
import { bar } from "./bar.js";
import { tilesPanel } from "./tiles.js";
import { timePanel } from "./time.js";
import { groupsPanel } from "./groups.js";
import { mapPanel } from "./map.js";
import { tablePanel } from "./table.js";

const FRAME = 31; // ms between drawings while the axis scrolls, on average
const MOST_LINES = 6; // groups that get a line
const IMAGE_WAIT = 30000; // ms after which no static image is expected any more
const OPEN_AGAIN = 3000; // ms without an answer after which a view opens again

/** What the panels are built for. */
const shapeOf = ({ share, by, amounts, place, spots, started }) => JSON.stringify([share, by == null, amounts, place == null, spots, started == null]);

/** One view of a session in the page. */
function show(session, el) {
  const { parts } = session.config;
  const look = new Look(session);
  const ask = (message) => session.ask(message);
  const head = bar(session, { full: parts.includes("bar"), ask });
  const chips = element("div", "ls-chips", { hidden: true, role: "group", "aria-label": "Filters" });
  const notice = element("div", "ls-notice", { role: "status", hidden: true });
  const body = element("div", "ls-body");
  const root = element("div", parts.every((part) => part === "bar") ? "ls-board ls-bar-only" : "ls-board", { role: "region", tabindex: "-1", "aria-label": parts.includes("time") ? "Live stream" : "Stream controls" }, head.node, chips, notice, body);
  el.replaceChildren(element("div", "ls-root", {}, root));
  let panels = null;
  let built = null;
  let drawnVersion = -1;
  let drawnAt = 0;
  let summary = null;
  let frame = 0;
  let visible = true;
  let closed = false;
  let noticeTimer = 0;

  function build() {
    const { layout } = session;
    built = shapeOf(layout);
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
    if (chips.contains(document.activeElement)) root.focus({ preventScroll: true });
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
    if (now - drawnAt < FRAME) {
      frame = requestAnimationFrame(draw);
      return;
    }
    if (visible && (fresh || scrolling)) {
      drawnAt = now - drawnAt < 2 * FRAME ? drawnAt + FRAME : now; // one that is late delays no other
      head.draw();
      if (session.layout && session.ring) drawPanels(fresh);
      drawnVersion = session.version;
      session.frames = (session.frames ?? 0) + 1;
    }
    if (scrolling || drawnVersion !== session.version) frame = requestAnimationFrame(draw);
  }

  function drawPanels(fresh) {
    const { layout } = session;
    if (built !== shapeOf(layout)) {
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
      panels.tiles?.draw(summary);
      const rangeText = session.isLive() ? (session.span === "all" ? "since the start" : `last ${duration(range[1] - range[0])}`) : "in the view";
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
  function notify(text) {
    clearTimeout(noticeTimer);
    notice.hidden = false;
    setText(notice, text);
    noticeTimer = setTimeout(() => { notice.hidden = true; }, 8000);
  }
  function refused(text) {
    head.release();
    if (parts.includes("bar")) head.complain(text);
    else notify(text);
    wake(true);
  }

  const resized = new ResizeObserver(() => { if (root.clientWidth) restyle(); });
  resized.observe(root);
  const themed = new MutationObserver(restyle);
  for (const node of [document.body, document.documentElement]) {
    themed.observe(node, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class", "data-theme", "data-vscode-theme-kind"] });
  }
  const seen = new IntersectionObserver((entries) => {
    // A busy page gets several entries in one call: the last one holds.
    visible = entries.at(-1).isIntersecting;
    if (visible) wake(true);
  });
  seen.observe(root);
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape") session.clearFilters();
    // Keys must not reach JupyterLab, which would change the cell.
    event.stopPropagation();
  });
  const ticking = setInterval(() => wake(true), 1000); // shows how long the kernel has been silent
  const view = { wake, notify, refused, restyle, look: () => ({ lines: summary?.lines, sums: summary?.sums, time: panels?.time?.look() }) };
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
    const open = () => shared.session.ask({ kind: "open", view: id });
    const leave = () => shared.session.ask({ kind: "close", view: id });
    window.addEventListener("pagehide", leave);
    open();
    // A message can be lost while the page or the kernel is connecting.
    const opening = setInterval(() => {
      if (shared.session.now != null) clearInterval(opening);
      else open();
    }, OPEN_AGAIN);
    // The image comes after the widget, and later if the kernel is busy.
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
      clearInterval(opening);
      window.removeEventListener("pagehide", leave);
      close();
      leave();
      shared.users--;
      if (!shared.users) {
        shared.end();
        sessions.delete(key);
      }
    };
  },
};
