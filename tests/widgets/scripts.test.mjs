// Unit tests of the modules without a page; run by test_scripts.py with `node --test`.
import assert from "node:assert/strict";
import { test } from "node:test";

const from = (name) => import(new URL(`../../src/logistream/widgets/static/${name}`, import.meta.url));
const { clock, duration, exact, parseRate, percent, short, sliderRate, wilson } = await from("format.js");
const { Ring, groupSums, join, linesOf, pausesOf, ranked, widthOf } = await from("series.js");
const { gather, logSteps, placeText, shareRange, timeSteps } = await from("time.js");
const { Session } = await from("session.js");
const { sorted } = await from("table.js");
const { ringsOf } = await from("map.js");

test("a typed rate is taken to the digit", () => {
  for (const [typed, rate] of [["700", 700], ["0.125", 0.125], ["12,345.6", 12345.6], ["1 000", 1000], ["2k", 2000], ["7 /s", 7], ["1e3", 1000]]) {
    assert.equal(parseRate(typed), rate, typed);
  }
  for (const typed of ["", "fast", "1,2,3", "--4"]) assert.ok(Number.isNaN(parseRate(typed)), typed);
  assert.equal(exact(12345.678), "12,345.678");
  assert.equal(parseRate(exact(12345.678)), 12345.678);
});

test("a position of the slider means two digits", () => {
  assert.deepEqual([-1, 0.3, 1.8, 5].map(sliderRate), [0.1, 2, 63, 100000]);
});

test("numbers are short", () => {
  assert.deepEqual([0, 0.25, 34.54, 999.6, 1234, 12345, 6.05e6, -31.67, NaN, null].map(short),
    ["0", "0.25", "34.5", "1,000", "1,234", "12.3k", "6.05M", "−31.7", "–", "–"]);
  assert.equal(percent(0.578), "58 %");
  assert.equal(percent(NaN), "–");
  assert.equal(clock(0), "00:00:00");
  assert.equal(clock(86399.5, { date: true, millis: true }), "1970-01-01 23:59:59.500");
  assert.deepEqual([30, 120, 3600 * 5].map(duration), ["30 s", "2 min", "5 h"]);
});

test("the interval holds the share", () => {
  const [low, high] = wilson(5, 10);
  assert.ok(low > 0.2 && low < 0.5 && high > 0.5 && high < 0.8);
  assert.ok(Number.isNaN(wilson(0, 0)[0]));
});

test("axes have round labels, and not too many", () => {
  assert.deepEqual(logSteps(28, 89, 4), [30, 50, 70]);
  assert.deepEqual(logSteps(0.5, 200000, 5), [1, 100, 10000]);
  assert.deepEqual(logSteps(0.5, 200000, 6), [1, 10, 100, 1000, 10000, 100000]);
  assert.ok(logSteps(1, 1e6, 3).length <= 3);
  assert.deepEqual(shareRange(0.575, 0.585, false).map((v) => v.toFixed(3)), ["0.540", "0.620"]);
  assert.deepEqual(shareRange(0.57, 0.59, true), [0, 1]);
  const { step, found } = timeSteps(1000.2, 1120.2, 9);
  assert.equal(step, 15);
  assert.ok(found.every((at) => at % 15 === 0) && found.length <= 9);
});

test("a ring gives what was put in, widens with new groups, and forgets", () => {
  const ring = new Ring({ step: 0.25, size: 4, amounts: 1 });
  ring.begin = 10;
  ring.put(10, 1, widthOf(1, 2), Float32Array.of(0.1, 5, 1, 2, 0, 1));
  ring.put(11, 1, widthOf(1, 3), Float32Array.of(0.2, 7, 1, 2, 3, 0, 1, 2));
  const cut = ring.cut(10, 12);
  assert.deepEqual([...cut.data.subarray(0, 8)].map((v) => Math.fround(v)), [0.1, 5, 1, 2, 0, 0, 1, 0].map(Math.fround));
  assert.equal(cut.data[16], -1); // nothing in cell 12
  assert.deepEqual([...groupSums(cut).events], [2, 4, 3]);
  ring.put(14, 1, widthOf(1, 3), new Float32Array(8));
  assert.equal(ring.cut(10, 10).data[2], 0);
  assert.equal(ring.oldest(20), 17);
});

test("a sample stands for all in volumes, and for itself in shares", () => {
  const data = Float32Array.of(0.1, 60, 20, 10, 0.1, 60, 20, 10);
  const cut = { step: 1, first: 100, count: 2, data, amounts: 1, groups: 1, weights: Float32Array.of(5, 5) };
  const { volume, events } = groupSums(cut);
  assert.deepEqual([volume[0], events[0]], [200, 40]);
  const found = linesOf(cut, { shown: 100, stop: 102, begin: 90, window: 2, rateWindow: 1, totals: [true] });
  assert.equal(found.rate[1], 100);
  assert.equal(found.share[1], 0.5);
  assert.equal(found.amounts[0][1], (600 * 60) / 2);
});

test("pauses are the stretches without a rate", () => {
  assert.deepEqual(pausesOf([[0, 5], [10, 0], [20, 7], [30, 0]]), [[10, 20], [30, Infinity]]);
});

test("many groups are a few rows and one rest, which comes last", () => {
  const labels = ["", ...Array.from({ length: 12 }, (_, i) => `m${i}`)];
  const events = Float64Array.from([5, ...Array.from({ length: 12 }, (_, i) => 100 - i)]);
  const hits = events.map((n, i) => (i === 3 ? n : n / 2));
  const rows = ranked(labels, { volume: events, events, hits }, { most: 5 });
  assert.equal(rows.length, 5);
  assert.equal(rows[0].label, "m2");
  assert.equal(rows[4].label, "");
  assert.equal(rows[4].members.length, 9);
  assert.equal(rows.reduce((sum, row) => sum + row.volume, 0), events.reduce((sum, n) => sum + n, 0));
});

test("lines that follow each other are joined", () => {
  const piece = (t) => ({ time: [t], rate: [1], groups: [[t]], amounts: [] });
  assert.deepEqual(join([piece(1), piece(2)]), { time: [1, 2], rate: [1, 1], groups: [[1, 2]], amounts: [] });
});

test("rows are sorted by numbers and by words, what is missing last", () => {
  const rows = [[2, "b"], [null, "c"], [10, "a"]];
  assert.deepEqual(sorted(rows, 0, 1).map(([v]) => v), [2, 10, null]);
  assert.deepEqual(sorted(rows, 1, -1).map(([, v]) => v), ["c", "b", "a"]);
  assert.equal(sorted(rows, 0, 0), rows);
});

test("the coastline is unrolled from its steps", () => {
  assert.deepEqual(ringsOf([[5, 10, 5, 0, 0, -10]]), [[[1, 2], [2, 2], [2, 0]]]);
});

const STEP = 0.25;
const LAYOUT = { step: STEP, size: 1440, share: null, by: null, amounts: [], filters: {}, window: 10, started: 1000, noun: "orders" };

/** A session that has had everything: the ring holds 3600 to 3900 s of a stream that began at 1000 s. */
function opened() {
  const sent = [];
  const session = new Session({ get: () => ({ span: 120 }), send: (message) => sent.push(message) });
  const update = (content) => session.receive({ kind: "update", now: 3900, facts: [0, 0, 0, 0], ...content }, []);
  update({ whole: true, number: 1, layout: LAYOUT, begin: 3600 / STEP, settings: { reachable: true } });
  session.ring.put(3600 / STEP, 1200, widthOf(0, 1), new Float32Array(1200 * widthOf(0, 1)));
  return { session, sent, update };
}

test("a session that misses an update, or the first one, asks for everything once", () => {
  const { session, sent, update } = opened();
  update({ number: 2, state: ["live", ""] });
  assert.deepEqual([session.state, sent], [["live", ""], []]);
  update({ number: 4, state: ["paused", ""] });
  update({ number: 5, state: ["paused", ""] });
  assert.deepEqual([session.state[0], sent], ["live", [{ kind: "everything" }]]);
  update({ number: 6, whole: true, layout: LAYOUT, state: ["paused", ""] });
  assert.equal(session.state[0], "paused");
  const late = new Session({ get: () => ({ span: 120 }), send: (message) => sent.push(message) });
  late.receive({ kind: "update", number: 9, begin: 3 }, []);
  assert.deepEqual(sent.map(({ kind }) => kind), ["everything", "everything"]);
});

test("the past is asked for once, no more of it than is looked at", () => {
  const { session, sent } = opened();
  session.range = [2000, 2120];
  session.needPast(session.range);
  const [asked] = sent;
  assert.deepEqual([asked.kind, asked.from, asked.to], ["past", 1990, 2120]);
  const count = 130 / STEP;
  const data = (values) => new DataView(new Float32Array(values).buffer);
  session.receive({
    kind: "past", id: asked.id, step: STEP, cells: [1990 / STEP, count, 3], labels: [""], countryNames: [],
    buffers: ["cells", "weights", "countries", "spots"],
  }, [data(count * 3), data(count), data(0), data(0)]);
  session.needPast(session.range);
  assert.equal(sent.length, 1);
  session.range = [3550, 3670]; // across the seam with the ring
  session.needPast(session.range);
  assert.deepEqual([sent[1].from, sent[1].to], [3540, 3610]);
});

test("the text of a mark takes the room that there is", () => {
  const measure = (text) => 10 * text.length;
  const place = (text, x, free, next) => placeText({ text, from: x, to: x }, { free, next, measure });
  assert.deepEqual(place("fraud wave", 100, 0, 300), { side: "right", text: "fraud wave" });
  assert.deepEqual(place("fraud wave", 100, 0, 150), { side: "left", text: "fraud wave" });
  assert.deepEqual(place("fraud wave", 100, 50, 170), { side: "right", text: "fraud …" });
  assert.equal(place("fraud wave", 100, 90, 120), null);
  assert.equal(place("x".repeat(300), 0, 0, 9000).text.length, 40);
});

test("marks that are near each other get one text", () => {
  const marks = [[10, "50 → 60/s"], [30, "60 → 70/s"], [200, "paused"], [215, "resumed, 9/s"], [400, "9 → 1/s"]].map(([x, text]) => ({ x, text }));
  assert.deepEqual(gather(marks, 50), [
    { from: 10, to: 30, text: "2 changes, last 60 → 70/s" },
    { from: 200, to: 215, text: "2 changes, last resumed, 9/s" },
    { from: 400, to: 400, text: "9 → 1/s" },
  ]);
  const measure = (text) => 2 * text.length;
  assert.deepEqual(placeText({ text: "2 changes", from: 100, to: 150 }, { free: 90, next: 200, measure }), { side: "right", text: "2 changes" });
});

test("values at the end of the lines are not taken across a change", () => {
  const session = new Session({ get: () => ({ span: 120 }), send: () => {} });
  session.update({
    layout: { step: 1, size: 60, share: "late", by: null, amounts: [["Sales", "USD", true]], filters: {}, window: 10, started: 900, noun: "orders" },
    labels: [""], begin: 900, marks: [], asked: [[900, 20], [955.5, 40], [956.5, 0], [957, 40]], now: 960, cells: [900, 60, 4], settings: { paused: false, rate: 40 }, facts: [0, 0, 0, 0, 0], state: ["live", ""],
  }, { cells: new DataView(Float32Array.from({ length: 240 }, (_, i) => [0.5, i < 4 * 57 ? 200 : 400, i < 4 * 57 ? 20 : 40, 10][i % 4]).buffer) });
  const { present } = session.summary([940, 960], []);
  assert.deepEqual([present.sum.seconds, present.sum.changed], [3, true]); // since the resumption
  assert.equal(present.sum.lines.amounts[0].at(-1), 400 * 60);
  assert.deepEqual([present.share.seconds, present.share.changed], [10, false]);
  session.marks = [{ kind: "scenario", at: 958, text: "outage" }];
  assert.equal(session.summary([940, 960], []).present.share.seconds, 2);
  assert.ok(Number.isNaN(session.summary([940, 960], []).present.sum.lines.amounts[0].at(-1))); // too short to say
});

test("nor are they in a view of the past", () => {
  const { session, update } = opened();
  update({ whole: true, number: 2, layout: { ...LAYOUT, amounts: [["Sales", "USD", true]] }, begin: 3600 / STEP, asked: [[1000, 20], [2115, 40]] });
  session.ring.put(3600 / STEP, 1200, widthOf(1, 1), new Float32Array(1200 * widthOf(1, 1)));
  session.range = [2000, 2120];
  session.needPast(session.range);
  const count = 130; // cells of 1 s
  const cells = Float32Array.from({ length: 4 * count }, (_, i) => [0.5, i < 4 * 125 ? 200 : 400, i < 4 * 125 ? 20 : 40, 0][i % 4]);
  const view = (values) => new DataView(Float32Array.from(values).buffer);
  session.takePast(
    { id: session.pending.id, step: 1, cells: [1990, count, 4], labels: [""], countryNames: [] },
    { cells: view(cells), weights: view(Array(count).fill(1)), countries: view([]), spots: view([]) },
  );
  const { present } = session.summary(session.range, []);
  assert.deepEqual([present.sum.seconds, present.sum.changed, present.share.changed], [5, true, false]);
  assert.equal(present.sum.lines.amounts[0].at(-1), 400 * 60);
});

test("what is missing is said, and only of a frame that follows a server", () => {
  const session = new Session({ get: () => ({ span: 120 }), send: () => {} });
  const missing = (state, behind, settings = { rate: 50 }) => {
    Object.assign(session, { state: [state, ""], settings, facts: [0, 0, behind, 0, 0] });
    return session.missing();
  };
  assert.deepEqual([missing("live", 3), missing("live", 300), missing("reconnecting", 0), missing("stopped", null), missing("stopped", 0, null)],
    [null, "catching up", "reconnecting", null, null]);
});
