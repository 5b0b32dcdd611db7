// The newest rows: they stop under the pointer, can be sorted, and show their JSON on a click.
import { element, setText, whole } from "./format.js";
import { MOST_ROWS } from "./session.js";

const LETTERS = { time: 12, number: 8, least: 6, group: 14 }; // of a column
const PADDING = 14; // px of a cell

/** Rows in the order of a column; `direction` is 1 or -1, or 0 for the order in which they came. */
export function sorted(rows, column, direction) {
  if (!direction) return rows;
  const value = (row) => row[column];
  return [...rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x == null || y == null) return (x == null) - (y == null);
    return direction * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
  });
}

export function tablePanel(session) {
  const head = element("tr");
  const body = element("tbody");
  const widths = element("colgroup");
  const hint = element("span", "ls-hint");
  const table = element("table", "ls-table", { "aria-label": "Newest rows" }, widths, element("thead", "", {}, head), body);
  const json = element("pre", "ls-json", { tabindex: "0" });
  const detail = element("div", "ls-detail", { hidden: true, role: "dialog", "aria-label": "The event as JSON" },
    element("div", "ls-head", {}, element("div", "ls-title", {}, "The event as JSON"),
      element("span", "", {},
        element("button", "ls-link", { type: "button", onclick: () => session.copy(json.textContent) }, "copy"),
        element("button", "ls-link", { type: "button", onclick: () => close() }, "close"))), json);
  const scroll = element("div", "ls-table-scroll", {}, table);
  const node = element("section", "ls-panel ls-rows", { "aria-label": "Newest rows" },
    element("div", "ls-head", {}, element("div", "ls-title", {}, "Newest rows"), hint), scroll, detail);
  let [column, direction] = [null, 0];
  let shown = [];
  let held = null; // the rows that are kept while the pointer or the focus is on the table
  let names = "";
  const longest = {}; // letters of the longest number seen, by column
  let missed = 0;
  let opener = null;

  function close() {
    detail.hidden = true;
    scroll.hidden = false;
    opener?.focus();
    release();
  }
  const hold = () => { held ??= [...session.rows]; };
  function release() {
    if (node.matches(":hover") || node.contains(document.activeElement) || !detail.hidden) return;
    held = null;
    missed = 0;
    draw();
  }
  scroll.addEventListener("pointerenter", hold);
  scroll.addEventListener("focusin", hold);
  node.addEventListener("pointerleave", () => setTimeout(release, 0));
  node.addEventListener("focusout", () => setTimeout(release, 0));
  node.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !detail.hidden) {
      event.stopPropagation();
      close();
    }
  });

  function open(row, from) {
    hold();
    opener = from;
    const event = Object.fromEntries(session.layout.names.map((name, i) => [name, row[i]]));
    setText(json, JSON.stringify(event, null, 2));
    detail.hidden = false;
    scroll.hidden = true;
    json.focus();
  }

  function cell(name, value, at) {
    if (value == null) return "";
    if (name === "event_time") return String(value).slice(11, 23);
    if (typeof value === "number") {
      const money = session.layout.units[name] != null && /^[A-Z]{3}$/.test(session.layout.units[name]);
      if (name === session.layout.share && at >= 0) return value ? session.layout.hit : session.layout.rest;
      return value.toLocaleString("en-US", money ? { minimumFractionDigits: 2, maximumFractionDigits: 2 } : { maximumFractionDigits: 4 });
    }
    if (typeof value === "boolean" && name === session.layout.share) return value ? session.layout.hit : session.layout.rest;
    return String(value);
  }

  /** Letters for which a column has room; null if it shares the rest with others. Does not shrink: widths must not jump. */
  function lettersOf(name) {
    const { layout } = session;
    if (name === "event_time") return LETTERS.time;
    if (name === layout.share) return Math.max(...[layout.hit, layout.rest, layout.headers[name] ?? name].map((text) => text.length));
    if (name === layout.by) {
      // A letter is narrower than a digit, on average.
      return Math.ceil(0.9 * Math.min(LETTERS.group, Math.max(...session.labels.map((label) => label.length), LETTERS.least)));
    }
    return longest[name] ?? null;
  }

  function setWidths(shownNames) {
    const letters = shownNames.map(lettersOf);
    const wanted = `${names} ${letters}`; // the headers may be new
    if (widths.dataset.letters === wanted) return;
    widths.dataset.letters = wanted;
    [...head.children].forEach((each, i) => each.classList.toggle("ls-number", longest[shownNames[i]] != null));
    widths.replaceChildren(...letters.map((count) => element("col", "", count == null ? {} : { style: `width: calc(${count}ch + ${PADDING}px)` })));
    const least = letters.reduce((sum, count) => sum + (count ?? LETTERS.least), 0);
    table.style.minWidth = `calc(${least}ch + ${PADDING * letters.length}px)`;
  }

  function draw() {
    const { layout } = session;
    const columns = layout.table.map((name) => layout.names.indexOf(name)).filter((i) => i >= 0);
    const wanted = JSON.stringify([layout.names, layout.table, column, direction]);
    if (wanted !== names) {
      names = wanted;
      const focused = [...head.children].findIndex((each) => each.contains(document.activeElement));
      head.replaceChildren(...columns.map((i) => {
        const name = layout.names[i];
        const unit = layout.units[name];
        const title = layout.headers[name] ?? name;
        const order = i === column && direction ? (direction > 0 ? "ascending" : "descending") : "none";
        return element("th", "", { "aria-sort": order, scope: "col" }, element("button", "", {
          type: "button", title: `Sort by ${name}${unit ? ` (${unit})` : ""}`,
          onclick: () => {
            direction = i === column ? (direction === -1 ? 1 : direction === 1 ? 0 : -1) : -1;
            column = i;
            draw();
          },
        }, title, order === "none" ? "" : order === "ascending" ? " ▲" : " ▼"));
      }));
      head.children[focused]?.firstChild.focus();
    }
    shown = sorted(held ?? session.rows, column, direction).slice(0, MOST_ROWS);
    missed = held ? Math.max(0, session.facts[0] - (held.at ?? (held.at = session.facts[0]))) : 0;
    setText(hint, held ? `held while you look${missed ? `: ${whole(missed)} newer` : ""}`
      : session.isLive() ? "click one for its JSON" : "of the live stream, not of the view");
    while (body.children.length < shown.length) {
      const row = element("tr", "", {
        tabindex: "0",
        onclick: (event) => open(event.currentTarget.row, event.currentTarget),
        onkeydown: (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          open(event.currentTarget.row, event.currentTarget);
        },
      });
      body.append(row);
    }
    while (body.children.length > shown.length) body.lastChild.remove();
    shown.forEach((values, r) => {
      const row = body.children[r];
      if (row.row === values && row.names === names) return;
      row.row = values;
      row.names = names;
      row.replaceChildren(...columns.map((i) => {
        const name = layout.names[i];
        const text = cell(name, values[i], i);
        const number = typeof values[i] === "number" && name !== layout.share;
        if (number) longest[name] = Math.max(longest[name] ?? LETTERS.number, text.length);
        return element("td", number ? "ls-number" : "", { title: text }, text);
      }));
    });
    setWidths(columns.map((i) => layout.names[i]));
  }
  return { node, draw };
}
