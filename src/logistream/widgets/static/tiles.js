// The tiles: what holds now, in large, with a small line of how it came to be.
import { FEWEST, element, known, percent, setText, short, whole } from "./format.js";

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

  function draw(lines, { windowText, live }) {
    const { layout, settings, facts } = session;
    const colours = look.colours;
    const n = lines.time.length;
    if (layout.share != null) {
      const { value, hint, spark } = tile("share", layout.title, `Share over the ${windowText}, with its 95 % interval`);
      const share = n ? last(lines.share) : NaN;
      setText(value, percent(share));
      setText(hint, known(share)
        ? `${(100 * last(lines.low)).toFixed(0)} to ${percent(last(lines.high))}, ${windowText}`
        : n && last(lines.trials) > 0 ? `waiting for ${session.noun}: ${whole(last(lines.trials))} of ${FEWEST}` : `waiting for ${session.noun}`);
      drawSpark(spark, lines.share, colours.strong);
    }
    {
      const filtered = Object.keys(layout.filters).length > 0;
      const title = filtered ? "Matching events per second" : "Events per second";
      const { value, hint, spark } = tile("rate", title, "Measured between the newest events");
      setText(value, n ? short(last(lines.rate)) : "–");
      setText(hint, !settings || !live ? (live ? "" : "end of the view")
        : settings.paused ? "paused" : `${short(settings.rate)} asked${filtered ? " of all" : ""}`);
      drawSpark(spark, lines.rate, colours.rate);
    }
    layout.amounts.forEach(([label, unit, total], k) => {
      const { value, hint, spark } = tile(`amount${k}`, label, total ? `Sum per minute over the ${windowText}` : `Mean over the ${windowText}`);
      setText(value, n ? short(last(lines.amounts[k])) : "–");
      setText(hint, total ? `${unit} per minute` : `${unit} on average`.trim());
      drawSpark(spark, lines.amounts[k], colours.groups[2 + k]);
    });
    const behind = facts[2];
    if (behind != null && settings) {
      const { value, hint, spark } = tile("lag", "Lag", "How far the frame is behind the server");
      const seconds = settings.paused ? (behind ? NaN : 0) : behind / settings.rate;
      // Below one event there is no lag: the next event has not happened yet.
      setText(value, behind === 0 ? "none" : !known(seconds) ? whole(behind) : seconds < 0.05 ? "< 0.05 s" : seconds < 10 ? `${seconds.toFixed(2)} s` : `${whole(seconds)} s`);
      setText(hint, `${whole(behind)} event${behind === 1 ? "" : "s"} behind${facts[3] ? `, ${whole(facts[3])} lost` : ""}`);
      session.lags.push(known(seconds) ? seconds : null);
      if (session.lags.length > 120) session.lags.shift();
      drawSpark(spark, session.lags, colours.text);
    }
  }

  return { node, draw };
}
