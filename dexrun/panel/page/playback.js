// An episode of a data set, played against its plots.

import {h, mark, write} from "./dom.js";
import {picture, read} from "./api.js";
import {COLORS, plotIn} from "./plots.js";
import {tell} from "./said.js";
import {say, translate} from "./words.js";

/** Plays whatever `open(data, number)` names. */
export function playback() {
  const title = h("h3", {}), pictures = h("div", {class: "pictures"}), plots = h("div", {class: "play-plots"});
  const slider = h("input", {type: "range", min: 0, max: 0, value: 0, "aria-label": "row"}), at = h("output", {});
  const play = h("button", {class: "do go", "data-word": "play"});
  const node = h("div", {class: "playback", hidden: true}, title, pictures, h("div", {class: "row"}, play, slider, at), plots);
  let episode = null, images = [], drawn = [], timer = 0, base = "";

  async function showRow() {
    const index = Number(slider.value), seconds = episode.t_s[index];
    write(at, `${seconds.toFixed(2)} s`);
    for (const plot of drawn) plot.setCursor({left: plot.valToPos(seconds, "x"), top: 0});
    await Promise.all(images.map(async (image) => {
      if (image.busy) return; // the newest row is asked for when this one is here
      image.busy = true;
      try {
        const address = await picture(`${base}/picture?camera=${encodeURIComponent(image.camera)}&row=${episode.rows[index]}`);
        await new Promise((resolve) => { image.node.onload = image.node.onerror = resolve; image.node.src = address; });
        URL.revokeObjectURL(address);
      } catch { mark(image.node, "alt", say("no_picture")); }
      image.busy = false;
    }));
  }

  async function step(began, from) {
    if (!timer) return;
    const seconds = episode.t_s[from] + (performance.now() - began) / 1000;
    let index = from;
    while (index < episode.rows.length - 1 && episode.t_s[index + 1] <= seconds) index++;
    slider.value = index;
    await showRow();
    if (index >= episode.rows.length - 1) return pause();
    if (timer) timer = setTimeout(step, 40, began, from);
  }

  function pause() {
    clearTimeout(timer);
    timer = 0;
    mark(play, "data-word", "play");
    translate(node);
  }

  play.onclick = () => {
    if (timer) return pause();
    const from = Number(slider.value) >= episode.rows.length - 1 ? 0 : Number(slider.value);
    mark(play, "data-word", "pause_play");
    translate(node);
    timer = setTimeout(step, 0, performance.now(), from);
  };
  slider.oninput = () => { pause(); showRow(); };

  function drawPlots() {
    plots.replaceChildren();
    drawn = Object.entries(episode.series).map(([name, {names, unit, values}]) => {
      const body = h("div", {class: "plot"});
      const keys = names.map((each, index) => {
        const key = h("span", {}, each);
        key.style.color = COLORS[index % COLORS.length];
        return key;
      });
      plots.append(h("div", {class: "joint"}, h("p", {}, h("b", {}, `${name} (${unit || "–"})`), ...keys), body));
      const plot = plotIn(body, names.map((label, index) => ({label, color: COLORS[index % COLORS.length]})), {height: 150, cursor: true});
      plot.setData([episode.t_s, ...names.map((_, index) => values.map((row) => row[index]))]);
      return plot;
    });
  }

  return {node, pause, async open(data, number) {
    pause();
    base = `/api/data/${data}/episodes/${number}`;
    try {
      episode = await read(base);
    } catch (error) {
      tell(error.message, "bad");
      return;
    }
    node.hidden = false;
    write(title, `${episode.name} · ${episode.seconds.toFixed(1)} s · ${episode.label ? say(`value_${episode.label}`, {}, episode.label) : "–"} · ${episode.task || ""}`);
    images = episode.cameras.map((camera) => ({camera, node: h("img", {alt: camera}), busy: false}));
    pictures.replaceChildren(...images.map((image) => h("figure", {}, image.node, h("figcaption", {}, image.camera))));
    slider.max = episode.rows.length - 1;
    slider.value = 0;
    drawPlots();
    await showRow();
  }};
}
