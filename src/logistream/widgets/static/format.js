// Numbers, times and colours as they are shown.

export const FEWEST = 10; // events that a share needs to be shown at all
const NUMBER = new Intl.NumberFormat("en-US");

export const known = (value) => value != null && Number.isFinite(value);

/** 12,345 */
export const whole = (value) => (known(value) ? NUMBER.format(Math.round(value)) : "–");

export const percent = (share, digits = 0) => (known(share) ? `${(100 * share).toFixed(digits)} %` : "–");

/** A number in few characters: 1.2k, 34.5, 0.25. */
export function short(value) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  for (const [limit, unit, letter] of [[1e9, 1e9, "G"], [1e6, 1e6, "M"], [1e4, 1e3, "k"]]) {
    if (size >= limit) return `${sign}${trim((size / unit).toPrecision(3))}${letter}`;
  }
  if (size >= 100) return sign + NUMBER.format(Math.round(size));
  return sign + trim(size.toPrecision(3));
}

const trim = (digits) => {
  const text = Number(digits).toString();
  return text.includes("e") ? "0" : text;
};

/** A rate with all the digits that were given: 700, 0.125, 12,345.6. */
export const exact = (value) => (known(value) ? new Intl.NumberFormat("en-US", { maximumFractionDigits: 6 }).format(value) : "");

/** What a person typed as a rate, NaN if it is not a number. Thousands may be separated by commas or blanks. */
export function parseRate(text) {
  const plain = text.trim().replace(/(\d)[,\s_](?=\d{3}(\D|$))/g, "$1").replace(/\s*(\/s|events\/s)$/, "");
  const shorthand = /^([\d.]+)\s*([kM])$/.exec(plain);
  if (shorthand) return Number(shorthand[1]) * (shorthand[2] === "k" ? 1e3 : 1e6);
  return plain === "" ? NaN : Number(plain);
}

/** The rate that a slider position (a power of ten) means: two digits, which is what a hand can choose. */
export const sliderRate = (position) => Number((10 ** position).toPrecision(2));

const pad = (value, digits = 2) => String(value).padStart(digits, "0");

/** Time of day in UTC; with the date if asked. */
export function clock(seconds, { date = false, millis = false } = {}) {
  const at = new Date(seconds * 1000);
  if (Number.isNaN(at.getTime())) return "–";
  let text = `${pad(at.getUTCHours())}:${pad(at.getUTCMinutes())}:${pad(at.getUTCSeconds())}`;
  if (millis) text += `.${pad(at.getUTCMilliseconds(), 3)}`;
  return date ? `${at.getUTCFullYear()}-${pad(at.getUTCMonth() + 1)}-${pad(at.getUTCDate())} ${text}` : text;
}

/** A length of time: 30 s, 2 min, 1 h. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${trim((seconds / 60).toPrecision(2))} min`;
  if (seconds < 129600) return `${trim((seconds / 3600).toPrecision(2))} h`;
  return `${trim((seconds / 86400).toPrecision(3))} days`;
}

/** Wilson's 95 % interval of a share. */
export function wilson(hits, trials, z = 1.96) {
  if (!(trials > 0)) return [NaN, NaN];
  const share = hits / trials;
  const scale = 1 + (z * z) / trials;
  const centre = share + (z * z) / (2 * trials);
  const half = z * Math.sqrt((share * (1 - share)) / trials + (z * z) / (4 * trials * trials));
  return [Math.max(0, (centre - half) / scale), Math.min(1, (centre + half) / scale)];
}

/** The label of a group as it is shown. */
export const groupName = (label) => (label === "" ? "all others" : label);

/** An element with a class, attributes and children. */
export function element(tag, className = "", attributes = {}, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Put the children of a node into an order. The one with the focus is not moved, since it would lose the focus. */
export function arrange(parent, wanted) {
  const fixed = wanted.find((node) => node === document.activeElement);
  wanted.forEach((node, place) => {
    if (node === fixed) while (parent.children[place] !== node) parent.append(parent.children[place]);
    else if (parent.children[place] !== node) parent.insertBefore(node, parent.children[place] ?? null);
  });
}

/** Set the text of a node only if it differs: browsers lay out again otherwise. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
