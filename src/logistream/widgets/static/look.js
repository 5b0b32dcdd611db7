// Colours, sizes and what is highlighted, as the canvases need them.

const COLOURS = ["text", "strong", "grid", "band", "rate", "asked", "pause", "mark", "broken", "stripe", "window", "land", "coast", "spot", "scenario", "fault", "unknown", "panel"];

export class Look {
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
