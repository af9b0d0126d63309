// Evaluation: how often a policy succeeds, and what each failure looked like.

import {card, fill, h} from "./dom.js";
import {choose, picture, read} from "./api.js";
import {form} from "./forms.js";
import {jobList, jobPanel, startJob} from "./jobs.js";
import {playback} from "./playback.js";
import {wanted} from "./road.js";
import {on} from "./state.js";
import {say, translate} from "./words.js";

const percent = (value) => `${(100 * value).toFixed(0)} %`;

/** Successes by policy, out of the scenes that are done; the table of the command has the intervals. */
function counted(scenes) {
  const policies = new Map();
  for (const {candidate, success} of scenes) {
    const [good, all] = policies.get(candidate) || [0, 0];
    policies.set(candidate, [good + Boolean(success), all + 1]);
  }
  return [...policies].map(([name, [good, all]]) => h("div", {class: "success"}, h("b", {}, name),
    h("div", {class: "bar"}, h("progress", {max: all, value: good})), h("output", {}, `${good} / ${all} · ${percent(good / all)}`)));
}

export function evaluateView() {
  const bars = h("div", {}), table = h("pre", {class: "output"}), films = h("div", {class: "films"}), player = playback();
  const results = h("section", {class: "card results", hidden: true}, h("h2", {"data-word": "results"}), bars, table);
  const failures = h("section", {class: "card failures", hidden: true}, h("h2", {"data-word": "failures"}), films);

  function film(job, scene) {
    const recording = scene.recordings?.[0];
    const image = h("img", {alt: say("no_picture")});
    if (scene.picture) picture(`${job.base || `/api/jobs/${job.id}`}/file/${scene.picture}`).then((address) => { image.src = address; }, () => {});
    return h("button", {class: "film", disabled: !recording, title: recording ? say("play") : say("why_no_film"), onclick: () => player.open(recording, 0)},
      image, h("b", {}, `${scene.candidate} · ${scene.seed}`), h("small", {}, scene.why || scene.reason || scene.outcome || ""));
  }

  function draw(job) {
    const found = job.evaluation;
    results.hidden = !found;
    if (!found) return;
    fill(bars, [job.id, found.scenes.length, found.scenes.filter((scene) => scene.success).length], () => counted(found.scenes));
    table.textContent = found.table || "";
    table.hidden = !found.table;
    const failed = found.scenes.filter((scene) => scene.success === false);
    failures.hidden = failed.length === 0;
    fill(films, [job.id, failed.map((scene) => [scene.candidate, scene.seed])], () => failed.slice(0, 60).map((scene) => film(job, scene)));
    translate(failures);
  }

  /** Tables of earlier days: the server forgets its jobs when it ends, the folders are there. */
  const earlier = h("div", {class: "chips"});
  const lookBack = () => choose().then(({evaluations}) => fill(earlier, evaluations, () => evaluations.map((name) => h("button", {
    class: "chip", "data-evaluation": name, onclick: async () => {
      const base = `/api/evaluations/${encodeURIComponent(name)}`;
      panel.leave();
      draw({id: base, base, ...await read(base)});
    },
  }, name))), () => {});
  on("jobs", lookBack);

  const panel = jobPanel({more: draw});
  const made = form("eval", {
    names: ["policy", "compare", "scenes", "engine", "to", "keep"], usual: {scenes: "20", engine: "stepped"}, word: "start_evaluation",
    submit: async (args) => panel.follow((await startJob("eval", args)).id),
  });
  on("view", (view) => view === "evaluate" && lookBack());
  on("view", (view) => view === "evaluate" && made.load(true).then(() => made.fill(wanted("evaluate")?.fields)));
  return [h("div", {class: "two"}, card("evaluate", h("p", {class: "muted", "data-word": "evaluate_more"}), made.node),
    h("div", {class: "stack"}, earlier, jobList(["eval"], panel, {last: true}), results, failures, player.node, panel.node))];
}
