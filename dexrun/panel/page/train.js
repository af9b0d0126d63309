// Training: started here, its loss drawn while it runs.

import {card, h, mark, write} from "./dom.js";
import {form} from "./forms.js";
import {jobList, jobPanel, startJob} from "./jobs.js";
import {COLORS, plotIn} from "./plots.js";
import {wanted} from "./road.js";
import {on} from "./state.js";
import {say} from "./words.js";

export function trainView() {
  const body = h("div", {class: "plot"}), keys = h("p", {class: "keys"}), now = h("p", {class: "muted"});
  const loss = h("section", {class: "card loss", hidden: true}, h("h2", {"data-word": "loss"}), keys, body, now);
  let plot = null, of = "";

  function draw(job) {
    const figures = job.figures;
    loss.hidden = !figures?.rows.length;
    if (loss.hidden) return;
    const step = figures.columns.indexOf("step");
    const curves = figures.columns.map((name, index) => ({name, index})).filter(({name}) => name.includes("loss"));
    const key = `${job.id} ${curves.map((each) => each.name)}`;
    if (of !== key) {
      of = key;
      plot?.destroy();
      plot = plotIn(body, curves.map((each, index) => ({label: each.name, color: COLORS[index % COLORS.length]})), {height: 240});
      plot.axes[0].values = (_, ticks) => ticks.map(String);
      keys.replaceChildren(...curves.map((each, index) => {
        const node = h("span", {}, each.name);
        node.style.color = COLORS[index % COLORS.length];
        return node;
      }));
    }
    for (const series of plot.series) series.spanGaps = true; // a validation is measured now and then
    for (const series of plot.series.slice(1)) series.points.show = () => figures.rows.length < 30; // one point is no line
    plot.setData([figures.rows.map((row) => row[step]), ...curves.map(({index}) => figures.rows.map((row) => row[index]))]);
    const last = figures.rows.at(-1);
    write(now, figures.columns.map((name, index) => (last[index] === null ? "" : `${name} ${Number(last[index].toPrecision(4))}`)).filter(Boolean).join(" · "));
    mark(body, "data-points", figures.rows.length);
  }

  const panel = jobPanel({more: draw});
  const made = form("train", {
    names: ["data", "policy", "steps", "batch", "to"], usual: {policy: "act", steps: "20000", device: "auto"}, word: "start_training",
    submit: async (args) => panel.follow((await startJob("train", args)).id),
  });
  on("view", (view) => view === "train" && made.load(true).then(() => made.fill(wanted("train")?.fields)));
  return [h("div", {class: "two"}, card("train", h("p", {class: "muted", "data-word": "train_more"}), made.node),
    h("div", {class: "stack"}, jobList(["train", "resume"], panel, {last: true}), loss, panel.node))];
}
