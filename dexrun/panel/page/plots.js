// Joints with their targets, force, and the loop's period, over the last seconds.

import {card, fill, h, mark, write} from "./dom.js";
import {emit, on, state} from "./state.js";
import {say} from "./words.js";

const SECONDS = 20, MOST = 1400, MARKS = [-20, -15, -10, -5, 0];
export const COLORS = ["#4c9aff", "#35c48d", "#f0b429", "#e8618c", "#a77bf3", "#4fc4cf", "#ff8a4c", "#9aa7b5"];

const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A plot of `series` ({label, color, dash}) over seconds, in `node`. */
export function plotIn(node, series, {height = 110, range = null, cursor = false, splits = null} = {}) {
  const axis = () => ({
    stroke: () => ink("--muted"), grid: {stroke: () => ink("--line"), width: 1}, ticks: {show: false}, font: "11px system-ui", size: 40, space: 26,
  });
  const plot = new uPlot({
    width: Math.max(120, node.clientWidth), height, padding: [6, 12, 0, 0], legend: {show: false},
    cursor: cursor ? {y: false, points: {show: false}} : {show: false}, select: {show: false},
    scales: {x: {time: false}, y: range ? {range: () => range} : {}},
    axes: [{...axis(), size: 20, space: 60, ...(splits && {splits: () => splits}), values: (_, ticks) => ticks.map((tick) => `${+tick.toFixed(2)}`)}, axis()],
    series: [{}, ...series.map((each) => ({
      label: each.label, stroke: each.color, width: each.dash ? 1 : 1.6, dash: each.dash, points: {show: false}, spanGaps: false,
    }))],
  }, [[], ...series.map(() => [])], node);
  new ResizeObserver(() => node.clientWidth && plot.setSize({width: Math.max(120, node.clientWidth), height})).observe(node);
  on("theme", () => plot.redraw());
  return plot;
}

const kept = {t: [], position: [], target: [], force: [], period: []};
let drawn = [], visible = true, notBefore = 0;

function forget() {
  for (const name of Object.keys(kept)) kept[name] = [];
}

function take(batch) {
  const last = kept.t.at(-1);
  if (last !== undefined && batch.t_s[0] < last) forget(); // another run's clock
  kept.t.push(...batch.t_s);
  kept.position.push(...batch.position);
  kept.target.push(...batch.target);
  kept.force.push(...batch.force);
  kept.period.push(...batch.period_ms);
  let first = 0;
  while (first < kept.t.length && kept.t[first] < kept.t.at(-1) - SECONDS) first++;
  first = Math.max(first, kept.t.length - MOST);
  if (first) for (const name of Object.keys(kept)) kept[name].splice(0, first);
}

/** Seconds before now, so that the axis stands still. */
const times = () => kept.t.map((t) => t - kept.t.at(-1));

function draw() {
  const began = performance.now();
  if (!visible || state.view !== "live" || document.hidden || !kept.t.length || began < notBefore) return;
  const t = times();
  for (const each of drawn) {
    if (each.node.offsetParent === null) continue;
    each.plot.setData([t, ...each.values()], false);
    each.plot.setScale("x", {min: -SECONDS, max: 0});
    if (each.now) write(each.now, each.now_());
  }
  requestAnimationFrame(() => { notBefore = performance.now() + 2 * (performance.now() - began); }); // a slow machine draws less often
}

function jointPlot(name, index, unit) {
  const now = h("output", {}), body = h("div", {class: "plot"});
  const node = h("div", {class: "joint"}, h("p", {}, h("b", {}, name), now), body);
  return {node, body, now, start() {
    const [low, high] = state.run.ranges_rad?.[index] || [0, 1];
    const span = unit === "0..1" ? [-0.05, 1.05] : null;
    const color = COLORS[index % COLORS.length];
    this.plot = plotIn(body, [{label: say("target"), color: ink("--muted"), dash: [4, 3]}, {label: name, color}],
      {height: 92, range: span, splits: MARKS});
    this.values = () => [kept.target.map((row) => row[index]), kept.position.map((row) => row[index])];
    this.now_ = () => {
      const value = kept.position.at(-1)?.[index];
      const near = Number.isFinite(value) && unit !== "0..1" && Math.min(value - low, high - value) < 0.05;
      mark(now, "data-near", near);
      return Number.isFinite(value) ? `${value.toFixed(3)} ${unit === "0..1" ? "" : "rad"}` : "–";
    };
  }};
}

function plainPlot(word, series, values) {
  const body = h("div", {class: "plot"});
  const legend = series.map((each) => {
    const key = h("span", {}, each.label);
    key.style.color = each.color;
    return key;
  });
  const node = h("div", {class: "joint"}, h("p", {}, h("b", {"data-word": word}), ...(series.length > 1 ? legend : [])), body);
  return {node, body, start() {
    this.plot = plotIn(body, series, {height: 92, splits: MARKS});
    this.values = values;
  }};
}

function rebuild(grid) {
  for (const each of drawn) each.plot?.destroy();
  forget();
  const {joints, units, force_channels: channels} = state.run;
  drawn = joints.map((name, index) => jointPlot(name, index, units[index]));
  if (channels) {
    const series = Array.from({length: channels}, (_, index) => ({label: `F${index + 1}`, color: COLORS[index % COLORS.length]}));
    drawn.push(plainPlot("force", series, () => series.map((_, index) => kept.force.map((row) => row[index]))));
  }
  drawn.push(plainPlot("period", [{label: "ms", color: COLORS[5]}], () => [kept.period]));
  return drawn.map((each) => each.node);
}

export function plotsCard() {
  const grid = h("div", {id: "plots"});
  on("hello", () => {
    if (!state.run) return;
    const before = grid.filledWith;
    fill(grid, [state.run.run, state.run.joints, state.run.force_channels], () => rebuild(grid));
    if (grid.filledWith === before) return;
    for (const each of drawn) each.start();
    emit("fresh", grid);
  });
  on("ticks", (batch) => { take(batch); draw(); });
  const key = h("span", {class: "key"}, h("i", {class: "solid"}), h("span", {"data-word": "position"}), h("i", {class: "dashed"}), h("span", {"data-word": "target"}));
  const made = card("joints", grid);
  made.firstChild.after(key);
  new IntersectionObserver((entries) => { visible = entries.at(-1).isIntersecting; }).observe(made);
  return made;
}
