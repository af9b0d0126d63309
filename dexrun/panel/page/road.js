// From the kit's box to an evaluated policy: what comes next, after a job and with what there is so far.

import {card, fill, h, mark} from "./dom.js";
import {choose} from "./api.js";
import {emit, on, state} from "./state.js";
import {say, translate} from "./words.js";

/** Send a person to a view; `wanted`: what it begins with (`fields` of its form, `kind`, `mode`, `data`). */
export function go(view, wanted = {}) {
  state.wanted = {view, ...wanted};
  if (location.hash === `#${view}`) emit("view", view);
  else location.hash = `#${view}`;
}

/** What a person was sent to `view` for; `null`: for nothing, or it has been asked before. */
export function wanted(view) {
  if (state.wanted?.view !== view) return null;
  const given = state.wanted;
  state.wanted = null;
  return given;
}

const to = (word, view, asked = {}) => ({word, view, asked});
const trainOn = (data) => to("next_train", "train", {fields: {data, to: `${data.split("/").at(-1)}-policy`}});
const evaluateIt = (job) => [to("next_evaluate", "evaluate", {fields: {policy: `${job.folder}/last`, to: `${job.folder.split("/").at(-1)}-table`}})];

const AFTER = {
  run: (job) => (job.args.mode === "grasp" ? [] : [to("next_look", "data", {newest: true})]),
  collect: (job) => [to("next_look", "data", {data: job.folder}), trainOn(job.folder)],
  check: (job) => [trainOn(job.args.data)],
  train: evaluateIt,
  resume: evaluateIt,
  eval: (job) => (job.args.policy.includes("/") ? [to("next_run", "start", {mode: "rollout", fields: {checkpoint: job.args.policy}})] : []),
};

/** What a person may do next once `job` is done. */
export const after = (job) => (job.state === "done" && AFTER[job.kind]?.(job)) || [];

/** Buttons that lead there, the first of them the usual way on. */
export const ways = (steps) => steps.map(({word, view, asked}, index) =>
  h("button", {class: `do ${index ? "" : "go"}`, "data-word": word, type: "button", onclick: () => go(view, asked)}));

const STATIONS = [
  ["configs", "road_setup", [to("next_setup", "setup")]],
  ["data", "road_episodes", [to("next_collect", "setup", {kind: "collect"}), to("next_record", "start", {mode: "teleop"})]],
  ["checkpoints", "road_train", [to("next_train", "train")]],
  ["evaluations", "road_evaluate", [to("next_evaluate", "evaluate")]],
];

/** While no run is alive: how far somebody has come, and the next step. */
export function roadCard() {
  const list = h("ol", {class: "road"}), buttons = h("div", {class: "row wrap"});
  const node = card("no_run", h("p", {"data-word": "no_run_more"}), list, buttons);
  node.classList.add("empty");
  async function draw() {
    const known = await choose().catch(() => null);
    if (!known) return; // the server is not there; the page's head says so
    const done = STATIONS.map(([name]) => known[name].length > 0), next = done.indexOf(false);
    fill(list, [done, say("done")], () => STATIONS.map(([, word], index) => {
      const item = h("li", {"data-word": word, "data-state": done[index] ? "done" : null});
      mark(item, "aria-current", index === next ? "step" : null);
      return item;
    }));
    const start = done[0] ? [to("next_start", "start")] : [];
    fill(buttons, next, () => ways(next < 0 ? start : [...STATIONS[next][2], ...start]));
    translate(node);
  }
  for (const event of ["hello", "jobs", "view", "language"]) on(event, () => !node.hidden && state.view === "live" && draw());
  on("hello", () => { node.hidden = state.run !== null; });
  return node;
}
