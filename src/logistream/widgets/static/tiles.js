// The tiles: what holds now, in large, with a small line of how it came to be.
import { FEWEST, duration, element, known, percent, setText, short, whole } from "./format.js";

const SPAN = ", and over which time: not across a change of rate or scenario that alters it";
const SPARK = { width: 96, height: 28 };

export function tilesPanel(session, look) {
  const node = element("div", "ls-tiles", { role: "group", "aria-label": "Present values" });
  const tiles = new Map();

  function tile(key, title, help) {
    if (!tiles.has(key)) {
      const value = element("output", "ls-tile-value", {}, "–");
      const hint = element("div", "ls-tile-hint");
      const spark = element("canvas", "ls-spark", { "aria-hidden": "true" });
      const name = element("div", "ls-tile-title");
      const box = element("div", "ls-tile", { title: help }, name, element("div", "ls-tile-row", {}, value, spark), hint);
      node.append(box);
      tiles.set(key, { box, name, value, hint, spark });
    }
    const found = tiles.get(key);
    setText(found.name, title);
    return found;
  }

  function drawSpark(canvas, values, colour) {
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = SPARK;
    if (canvas.width !== Math.round(width * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const draw = canvas.getContext("2d");
    draw.setTransform(ratio, 0, 0, ratio, 0, 0);
    draw.clearRect(0, 0, width, height);
    const seen = values.filter(known);
    if (seen.length < 2) return;
    const [least, most] = [Math.min(...seen), Math.max(...seen)];
    // Changes of less than two per cent are drawn as a straight line.
    const half = Math.max((most - least) / 2, 0.01 * Math.abs(most + least), 1e-9);
    const low = (most + least) / 2 - half;
    const y = (value) => height - 3 - ((value - low) / (2 * half)) * (height - 6);
    draw.strokeStyle = colour;
    draw.lineWidth = 1.5;
    draw.lineJoin = "round";
    draw.beginPath();
    let drawing = false;
    values.forEach((value, i) => {
      if (!known(value)) drawing = false;
      else {
        const x = 1 + (i / (values.length - 1)) * (width - 4);
        if (drawing) draw.lineTo(x, y(value));
        else draw.moveTo(x, y(value));
        drawing = true;
      }
    });
    draw.stroke();
    draw.fillStyle = colour;
    const last = values.length - 1;
    if (known(values[last])) draw.fillRect(width - 4, y(values[last]) - 1.5, 3, 3);
  }

  const last = (values) => values[values.length - 1];

  /** Over which time a value is taken. */
  const spanOf = ({ seconds }) => `last ${duration(seconds)}`;

  function shareHint(lines, present) {
    const trials = last(lines.trials) ?? 0;
    if (known(last(lines.share))) return `${(100 * last(lines.low)).toFixed(0)} to ${percent(last(lines.high))}, ${spanOf(present)}`;
    const missing = session.isLive() ? session.missing() : null;
    if (missing) return missing;
    const waits = session.isLive() && !session.settings?.paused ? "waiting for" : "too few";
    return `${waits} ${session.noun}${trials > 0 ? `: ${whole(trials)} of ${FEWEST}` : ""}`;
  }

  /** Value and hint of a sum per minute. */
  function sumOf(value, unit, present) {
    const per = `${unit} per minute`.trim();
    const missing = session.isLive() ? session.missing() : null;
    if (missing) return [NaN, missing];
    if (session.isLive() && session.settings?.paused) return [0, `${per}, paused`];
    if (!known(value)) return [NaN, present.changed ? "measuring since a change" : `waiting for ${session.noun}`];
    return [value, `${per}, ${spanOf(present)}`];
  }

  function rateHint(filtered) {
    const { settings } = session;
    if (!session.isLive()) return "end of the view";
    if (!settings) return "";
    return settings.paused ? "paused" : `${short(settings.rate)} asked${filtered ? " of all" : ""}`;
  }

  function draw({ lines, present }) {
    const { layout, settings, facts } = session;
    const colours = look.colours;
    if (layout.share != null) {
      const ends = present.share.lines;
      const { value, hint, spark } = tile("share", layout.title, `Share with its 95 % interval${SPAN}`);
      setText(value, percent(last(ends.share)));
      setText(hint, shareHint(ends, present.share));
      drawSpark(spark, lines.share, colours.strong);
    }
    {
      const filtered = Object.keys(layout.filters).length > 0;
      const missing = session.isLive() ? session.missing() : null;
      const { value, hint, spark } = tile("rate", filtered ? "Matching events per second" : "Events per second", "Measured between the newest events");
      setText(value, missing ? "–" : short(last(lines.rate)));
      setText(hint, missing ?? rateHint(filtered));
      drawSpark(spark, lines.rate, colours.rate);
    }
    layout.amounts.forEach(([label, unit, total], k) => {
      const at = total ? present.sum : present.share;
      const found = last(at.lines.amounts[k]);
      const [shown, why] = total ? sumOf(found, unit, at) : [found, `${unit} on average, ${spanOf(at)}`.trim()];
      const { value, hint, spark } = tile(`amount${k}`, label, `${total ? "Sum per minute" : "Mean"}${SPAN}`);
      setText(value, short(shown));
      setText(hint, why);
      drawSpark(spark, lines.amounts[k], colours.groups[2 + k]);
    });
    const behind = facts[2];
    if (behind != null && settings) {
      const { value, hint, spark } = tile("lag", "Lag", "How far the frame is behind the server");
      const seconds = facts[4];
      setText(value, behind === 0 ? "none" : !known(seconds) ? whole(behind) : seconds < 0.05 ? "< 0.05 s" : seconds < 10 ? `${seconds.toFixed(2)} s` : `${whole(seconds)} s`);
      setText(hint, `${whole(behind)} event${behind === 1 ? "" : "s"} behind${facts[3] ? `, ${whole(facts[3])} lost` : ""}`);
      session.lags.push(known(seconds) ? seconds : null);
      if (session.lags.length > 120) session.lags.shift();
      drawSpark(spark, session.lags, colours.text);
    }
  }

  return { node, draw };
}
