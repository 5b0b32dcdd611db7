// The map: where orders go (circles, area by volume, colour by share) and where customers are (squares).
import { FEWEST, element, percent, setText, short, whole } from "./format.js";

const [WEST, EAST, SOUTH, NORTH] = [-170, 190, -57, 79];
const PRIOR = 20; // orders at the overall share that are added to each place when its colour is chosen
const UNITS = 5; // per degree, of COASTLINE

/** Longitudes west of the left edge are shown at the right edge. */
const east = (lon) => (lon < WEST ? lon + 360 : lon);

/** Rings of the coastline in degrees, from their steps. */
export function ringsOf(coastline) {
  return coastline.map((steps) => {
    const points = [];
    let [x, y] = [0, 0];
    for (let i = 0; i < steps.length; i += 2) {
      x += steps[i];
      y += steps[i + 1];
      points.push([x / UNITS, y / UNITS]);
    }
    return points;
  });
}

export function mapPanel(session, look) {
  const canvas = element("canvas", "ls-map-canvas", { role: "img", "aria-label": "Map" });
  const hint = element("span", "ls-hint");
  const title = element("div", "ls-title", {}, "Map");
  const tip = element("div", "ls-tooltip", { hidden: true, "aria-hidden": "true" });
  const body = element("div", "ls-map-body", {}, canvas, tip);
  const node = element("section", "ls-panel ls-map", { "aria-label": "Map" }, element("div", "ls-head", {}, title, hint), body);
  const rings = ringsOf(COASTLINE);
  let circles = [];
  let land = null;
  let landKey = "";
  let [width, height] = [0, 0]; // px
  let drawn = [];
  new ResizeObserver(([entry]) => {
    ({ width, height } = entry.contentRect);
    session.redraw(true);
  }).observe(body);

  /** Degrees → px: the world as wide as the panel, or as high, cut at the poles. */
  function projection(width, height) {
    const scale = Math.min(width / (EAST - WEST), height / (NORTH - SOUTH));
    const [left, top] = [(width - scale * (EAST - WEST)) / 2, (height - scale * (NORTH - SOUTH)) / 2];
    return ([lon, lat]) => [left + (lon - WEST) * scale, top + (NORTH - lat) * scale];
  }

  /** The land does not change: drawn once per size and theme. */
  function landOf(width, height, ratio, at) {
    const key = `${width} ${height} ${ratio} ${look.themed}`;
    if (key === landKey) return land;
    landKey = key;
    land = document.createElement("canvas");
    land.width = width * ratio;
    land.height = height * ratio;
    const draw = land.getContext("2d");
    draw.setTransform(ratio, 0, 0, ratio, 0, 0);
    draw.fillStyle = look.colours.land;
    draw.strokeStyle = look.colours.coast;
    draw.lineWidth = 0.6;
    for (const ring of rings) {
      draw.beginPath();
      ring.forEach((point, i) => (i ? draw.lineTo(...at(point)) : draw.moveTo(...at(point))));
      draw.closePath();
      draw.fill();
      draw.stroke();
    }
    return land;
  }

  function draw(countries, names, spots) {
    const { layout } = session;
    const wanted = [countries, spots, names.length, width, height, look.themed];
    if (!width || !height || wanted.every((value, i) => value === drawn[i])) return;
    drawn = wanted;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const at = projection(width, height);
    const paint = canvas.getContext("2d");
    paint.setTransform(1, 0, 0, 1, 0, 0);
    paint.clearRect(0, 0, canvas.width, canvas.height);
    paint.drawImage(landOf(width, height, ratio, at), 0, 0);
    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.fillStyle = look.colours.spot;
    paint.globalAlpha = 0.75;
    const side = Math.max(2, width / 260);
    for (let i = 0; i < spots.length; i += 3) {
      const [x, y] = at([east(spots[i]), spots[i + 1]]);
      paint.fillRect(x - side / 2, y - side / 2, side, side);
    }
    paint.globalAlpha = 1;
    circles = [];
    let [largest, all, late] = [1, 0, 0];
    for (let i = 0; i < countries.length; i += 5) {
      largest = Math.max(largest, countries[i + 3]);
      all += countries[i + 3];
      late += countries[i + 4];
    }
    const most = Math.min(width, 2 * height) / 24;
    const shares = [];
    for (let i = 0; i < countries.length; i += 5) {
      const [place, lon, lat, events, hits] = countries.subarray(i, i + 5);
      const [x, y] = at([east(lon), lat]);
      const share = layout.share != null && events >= FEWEST ? hits / events : NaN;
      // Added orders at the overall share: a few orders must not give a place an extreme colour by chance.
      const smoothed = (hits + (PRIOR * late) / all) / (events + PRIOR);
      if (!Number.isNaN(share)) shares.push(smoothed);
      circles.push({ x, y, r: Math.max(1.6, most * Math.sqrt(events / largest)), name: names[place], events, hits, share, smoothed });
    }
    circles.sort((a, b) => b.r - a.r);
    const [low, high] = shares.length ? [Math.min(...shares), Math.max(...shares)] : [0, 1];
    const differ = high - low > 0.005;
    for (const circle of circles) {
      paint.beginPath();
      paint.arc(circle.x, circle.y, circle.r, 0, 2 * Math.PI);
      paint.fillStyle = Number.isNaN(circle.share) ? look.colours.unknown : look.shade(differ ? (circle.smoothed - low) / (high - low) : 0.5);
      paint.globalAlpha = 0.82;
      paint.fill();
      paint.globalAlpha = 1;
      paint.strokeStyle = look.colours.panel;
      paint.lineWidth = 0.8;
      paint.stroke();
    }
    hint.replaceChildren();
    if (circles.length) hint.append(`● ${session.noun} by ${layout.place}:`);
    if (shares.length && !differ) hint.append(` ${percent(low)} ${layout.hit}`);
    else if (shares.length > 1) {
      hint.append(`  ${percent(low)} `, element("i", "ls-ramp", { style: `background:linear-gradient(90deg, ${look.shade(0)}, ${look.shade(0.5)}, ${look.shade(1)})` }), ` ${percent(high)} ${layout.hit}`);
    }
    if (spots.length) hint.append(circles.length ? " · " : "", element("i", "ls-spot"), ` ${layout.spots}`);
    const total = circles.reduce((sum, circle) => sum + circle.events, 0);
    const label = circles.length ? `Map: ${whole(total)} ${session.noun} to ${circles.length} places, most to ${circles[0].name}` : "Map";
    if (performance.now() - (canvas.labelledAt ?? -1e9) > 5000) {
      canvas.labelledAt = performance.now();
      canvas.setAttribute("aria-label", label);
    }
  }

  function circleAt(event) {
    for (let i = circles.length - 1; i >= 0; i--) {
      const circle = circles[i];
      if (Math.hypot(circle.x - event.offsetX, circle.y - event.offsetY) <= Math.max(4, circle.r)) return circle;
    }
    return null;
  }
  canvas.addEventListener("pointermove", (event) => {
    const circle = circleAt(event);
    tip.hidden = !circle;
    canvas.style.cursor = circle ? "pointer" : "";
    if (!circle) return;
    const share = session.layout.share == null ? "" : Number.isNaN(circle.share) ? `, under ${FEWEST} ${session.noun}` : `, ${percent(circle.share)} ${session.layout.hit}`;
    setText(tip, `${circle.name}: ${short(circle.events)} ${session.noun}${share}`);
    tip.style.left = `${Math.min(circle.x + 10, body.clientWidth - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.max(0, circle.y - 30)}px`;
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("click", (event) => {
    const circle = circleAt(event);
    if (circle) session.toggleFilter(session.layout.place, circle.name);
  });
  return { node, draw };
}
