// The groups: the share of each as a dot with its interval, the volume as a thin bar. A click filters.
import { FEWEST, arrange, element, groupName, percent, setText, short, whole, wilson } from "./format.js";
import { ranked } from "./series.js";

export function groupsPanel(session, look, ask) {
  const select = element("select", "ls-select", { "aria-label": "Group by", onchange: () => ask({ kind: "by", value: select.value }) });
  const title = element("div", "ls-title");
  const hint = element("span", "ls-hint");
  const axis = element("div", "ls-group-axis", { "aria-hidden": "true" });
  const list = element("div", "ls-group-list", { role: "group", tabindex: "-1", "aria-label": "Groups; choose one to filter" });
  const node = element("section", "ls-panel ls-groups", { "aria-label": "Groups" },
    element("div", "ls-head", {}, title, select), hint, axis, list);
  const rows = new Map();
  let options = "";

  function rowOf(label) {
    if (rows.has(label)) return rows.get(label);
    const [name, value, band, dot, bar, mean] = ["ls-group-name", "ls-group-value", "ls-band", "ls-point", "ls-volume", "ls-mean"]
      .map((css) => element("span", css));
    const count = element("span", "ls-group-count");
    const swatch = element("i", "ls-swatch", { "aria-hidden": "true" });
    const button = element("button", "ls-group", {
      type: "button",
      onclick: () => session.toggleFilter(session.layout.by, label),
      onpointerenter: () => { look.highlight = label; session.redraw(); },
      onpointerleave: () => { look.highlight = null; session.redraw(); },
    }, element("span", "ls-group-label", {}, swatch, name), element("span", "ls-track", {}, mean, band, dot),
    value, element("span", "ls-volume-track", {}, bar), count);
    const row = { button, name, value, count, band, dot, bar, mean, swatch };
    rows.set(label, row);
    return row;
  }

  /** Ends of the axis of shares: fitted to the intervals, or 0 to 100 %. */
  function domain(intervals) {
    if (look.full || !intervals.length) return [0, 1];
    const low = Math.min(...intervals.map(([a]) => a));
    const high = Math.max(...intervals.map(([, b]) => b));
    const step = high - low > 0.5 ? 0.2 : 0.1;
    return [Math.max(0, Math.floor(low / step + 0.1) * step), Math.min(1, Math.ceil(high / step - 0.1) * step)];
  }

  function draw(sums, rangeText) {
    const { layout, labels } = session;
    const shares = layout.share != null;
    const wanted = JSON.stringify([layout.groupings, layout.by]);
    if (wanted !== options) {
      options = wanted;
      select.replaceChildren(...layout.groupings.map((name) => element("option", "", { value: name }, name)));
      select.value = layout.by;
    }
    setText(title, shares ? `${layout.title} by` : "Volume by");
    const shown = ranked(labels, sums, { shares, most: look.tall ? 14 : 9 });
    const total = shown.reduce((sum, row) => sum + row.volume, 0);
    const hits = shown.reduce((sum, row) => sum + row.hits, 0);
    const events = shown.reduce((sum, row) => sum + row.events, 0);
    setText(hint, total ? `${short(total)} ${session.noun}, ${rangeText}${shares && events >= FEWEST ? " · dashed: all" : ""}` : `waiting for ${session.noun}`);
    const largest = Math.max(1, ...shown.filter((row) => row.label !== "").map((row) => row.volume));
    const intervals = shown.filter((row) => row.events >= FEWEST).map((row) => wilson(row.hits, row.events));
    const [low, high] = domain(shares ? intervals : []);
    const at = (share) => `${(100 * (share - low)) / (high - low || 1)}%`;
    node.classList.toggle("ls-no-shares", !shares);
    const ticks = shares ? [low, (low + high) / 2, high].map((value) => percent(value)).join("|") : "";
    if (axis.dataset.ticks !== ticks) {
      axis.dataset.ticks = ticks;
      axis.replaceChildren(...(shares ? ticks.split("|").map((text) => element("span", "", {}, text)) : []));
    }
    const filter = layout.filters[layout.by] ?? [];
    for (const [label, row] of rows) {
      if (shown.some((r) => r.label === label)) continue;
      if (row.button === document.activeElement) list.focus({ preventScroll: true });
      rows.delete(label);
      row.button.remove();
    }
    arrange(list, shown.map((row) => rowOf(row.label).button));
    shown.forEach((row) => {
      const parts = rowOf(row.label);
      const colour = look.colourOf(row.label);
      const name = row.label === "" && row.members.length > 1 ? `${row.members.length} others` : groupName(row.label);
      setText(parts.name, name);
      parts.swatch.style.background = colour;
      parts.bar.style.width = `${Math.min(100, (100 * row.volume) / largest)}%`;
      const enough = row.events >= FEWEST;
      parts.band.hidden = parts.dot.hidden = !shares || !enough;
      parts.mean.hidden = !shares || events < FEWEST;
      if (!parts.mean.hidden) parts.mean.style.left = at(hits / events);
      let description = `${whole(row.volume)} ${session.noun}`;
      if (shares && enough) {
        const [from, to] = wilson(row.hits, row.events);
        parts.band.style.left = at(from);
        parts.band.style.width = `${(100 * (to - from)) / (high - low || 1)}%`;
        parts.band.style.background = parts.dot.style.background = colour;
        parts.dot.style.left = at(row.hits / row.events);
        setText(parts.value, percent(row.hits / row.events));
        description = `${percent(row.hits / row.events)} ${layout.hit} (${percent(from)} to ${percent(to)}), ${description}`;
      } else setText(parts.value, shares ? "too few" : short(row.volume));
      setText(parts.count, shares ? short(row.volume) : "");
      parts.value.classList.toggle("ls-few", shares && !enough);
      parts.button.title = `${name}: ${description}`;
      parts.button.setAttribute("aria-label", `${name}: ${description}`);
      parts.button.disabled = row.label === "";
      parts.button.setAttribute("aria-pressed", String(filter.includes(row.label)));
    });
  }

  return { node, draw };
}
