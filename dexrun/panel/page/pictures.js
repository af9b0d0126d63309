// The cameras: one tile each, in colour, with mask and plan, or as depth.

import {$, card, fill, h, mark, write} from "./dom.js";
import {seen} from "./link.js";
import {STALE_MS, emit, on, state} from "./state.js";
import {say} from "./words.js";

const tiles = new Map();

/** Streams that are shown now, with the rates that are worth asking for. */
export function wantedStreams() {
  const rate = matchMedia("(max-width: 700px)").matches ? 10 : 15;
  return Object.fromEntries([...tiles.values()].map((tile) => [tile.stream, rate]));
}

function makeTile(name, about, mode) {
  const kinds = ["color", "mask", ...(about.depth ? ["depth"] : [])];
  const canvas = h("canvas", {width: about.width, height: about.height, "data-camera": name});
  const ageLabel = h("span", {class: "age"}), rate = h("span", {class: "rate"});
  const tile = {name, canvas, ageLabel, rate, arrived: -Infinity, times: [], stream: ""};
  const choices = kinds.map((kind) => h("button", {"data-kind": kind, "data-word": `stream_${kind}`, onclick: () => choose(kind)}));
  function choose(kind) {
    tile.stream = `${name}.${kind}`;
    tile.times = [];
    for (const each of choices) mark(each, "aria-pressed", each.dataset.kind === kind);
    emit("watch");
  }
  const frame = h("div", {class: "frame"}, canvas, ageLabel);
  frame.style.aspectRatio = `${about.width} / ${about.height}`;
  tile.node = h("figure", {class: "camera"}, frame,
    h("figcaption", {}, h("b", {}, name), rate, h("span", {class: "segmented"}, ...choices)));
  tiles.set(name, tile);
  choose(mode === "grasp" && Object.keys(state.run.cameras)[0] === name ? "mask" : "color");
  return tile.node;
}

async function draw({head, payload}) {
  const tile = [...tiles.values()].find((each) => each.stream === head.stream);
  if (!tile) return seen(head.stream);
  try {
    const bitmap = await createImageBitmap(new Blob([payload], {type: "image/jpeg"}));
    if (tile.canvas.width !== bitmap.width || tile.canvas.height !== bitmap.height) {
      tile.canvas.width = bitmap.width;
      tile.canvas.height = bitmap.height;
    }
    tile.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
  } finally {
    tile.arrived = performance.now();
    tile.times = [...tile.times.slice(-20), tile.arrived];
    seen(head.stream);
  }
}

function showAges() {
  const now = performance.now();
  for (const tile of tiles.values()) {
    const old = now - tile.arrived, never = !Number.isFinite(old);
    mark(tile.node, "data-stale", old > STALE_MS);
    write(tile.ageLabel, never ? say("picture_none") : say("picture_old", {age: (old / 1000).toFixed(1)}));
    const [first] = tile.times, count = tile.times.length - 1;
    write(tile.rate, old > STALE_MS || count < 2 ? "" : `${(1000 * count / (now - first)).toFixed(0)} /s`);
  }
}

export function camerasCard() {
  const grid = h("div", {id: "cameras"});
  const made = card("cameras", grid);
  on("hello", () => {
    const cameras = state.run?.cameras;
    if (!cameras) return; // the last pictures stay, in grey
    fill(grid, [state.run.run, cameras], () => {
      tiles.clear();
      return Object.entries(cameras).map(([name, about]) => makeTile(name, about, state.run.mode));
    });
    mark(grid, "data-count", Object.keys(cameras).length);
    emit("fresh", grid);
    emit("watch");
  });
  on("picture", draw);
  on("language", showAges);
  setInterval(showAges, 200);
  return made;
}
