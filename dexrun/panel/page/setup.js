// From the kit's box to a checked configuration: the set-up commands, one after another, answered here.

import {card, fill, h, mark} from "./dom.js";
import {choose as known, picture} from "./api.js";
import {form} from "./forms.js";
import {jobList, jobPanel, startJob} from "./jobs.js";
import {after, wanted} from "./road.js";
import {on, state} from "./state.js";
import {translate} from "./words.js";

const ROADS = {
  arm: ["find-ports", "setup-motors", "calibrate", "joints", "find-cameras", "init", "doctor"],
  simulated: ["init", "doctor", "collect"],
};
const KINDS = [...new Set(Object.values(ROADS).flat())];
/** What is asked for in front; the rest is under "More". */
const FRONT = {
  "find-ports": [], "setup-motors": ["port", "model"], calibrate: ["port", "model", "name"], joints: ["port", "model", "calibration", "let_go"],
  "find-cameras": [], init: [], doctor: ["config"], collect: ["episodes", "to", "config"],
};
const USUAL = {"find-cameras": {to: "cameras"}, calibrate: {name: "follower"}, collect: {episodes: "10", to: "demonstrations"}};

/** Files that find-cameras says it has saved. */
const taken = (job) => [...new Set(job.output.join("\n").match(/\b\d+\.jpg\b/g))];

const shown = ([id, ...files]) => files.map((file) => {
  const image = h("img", {alt: file});
  picture(`/api/jobs/${id}/file/${file}`).then((address) => { image.src = address; }, () => {});
  return h("figure", {class: "film"}, image, h("b", {}, file));
});

/** Port and model that were named last: the next step is about the same arm, most often. */
function lastArm() {
  const {port, model} = state.jobs.find((job) => job.args.port)?.args || {};
  return {port, model};
}

export function setupView() {
  const pictures = h("div", {class: "films"}), holder = h("div", {class: "holder"}), steps = h("ol", {class: "steps"});
  let road = localStorage.getItem("dexrun.road"), current = "", configured = false;
  const panel = jobPanel({
    more(job) {
      fill(pictures, job.folder && job.kind === "find-cameras" ? [job.id, ...taken(job)] : [], shown);
      holder.hidden = job.state === "running" && job.kind === current; // one thing at a time
    },
    next(job) {
      const following = ROADS[road]?.[ROADS[road].indexOf(job.kind) + 1];
      if (following) return [{word: `next_${following}`, view: "setup", asked: {kind: following, fields: job.kind === "init" ? {config: job.args.to} : {}}}];
      return job.kind === "doctor" ? [{word: "next_record", view: "start", asked: {mode: "teleop"}}] : after(job);
    },
  });
  const roads = Object.keys(ROADS).map((name) => h("button", {class: "mode", type: "button", "data-road": name, onclick: () => take(name)},
    h("strong", {"data-word": `road_${name}`}), h("small", {"data-word": `road_${name}_more`})));

  function take(name) {
    road = name;
    localStorage.setItem("dexrun.road", name);
    for (const each of roads) mark(each, "aria-pressed", each.dataset.road === name);
    steps.replaceChildren(...ROADS[name].map((kind) => h("li", {}, h("button", {class: "step", "data-step": kind, onclick: () => { choose(kind); holder.scrollIntoView({block: "nearest"}); }},
      h("b", {"data-word": `job_${kind}`}), h("small", {"data-word": `step_${kind}`})))));
    translate(steps);
    done();
    choose([...steps.querySelectorAll("button")].find((step) => step.dataset.state !== "done")?.dataset.step || ROADS[name].at(-1));
  }

  function choose(kind, fields = {}) {
    current = kind;
    for (const step of steps.querySelectorAll("button")) mark(step, "aria-current", step.dataset.step === kind ? "step" : null);
    const made = form(kind, {
      names: FRONT[kind], usual: {...lastArm(), ...USUAL[kind], ...fields}, fixed: kind === "init" && road === "simulated" ? {simulated: true} : {},
      word: "start_step", submit: async (args) => panel.follow((await startJob(kind, args)).id),
    });
    holder.hidden = false;
    holder.replaceChildren(h("section", {class: "card"}, h("h2", {"data-word": `job_${kind}`}), h("p", {class: "muted", "data-word": `about_${kind}`}), made.node));
    translate(holder);
  }

  function done() {
    for (const step of steps.querySelectorAll("button")) {
      const last = state.jobs.find((job) => job.kind === step.dataset.step);
      mark(step, "data-state", last ? last.state : step.dataset.step === "init" && configured ? "done" : null);
    }
  }

  const look = () => known().then(({configs}) => { configured = configs.length > 0; done(); }, () => {});
  on("jobs", look);
  on("view", (view) => {
    if (view !== "setup") return;
    look();
    const asked = wanted("setup");
    if (!asked?.kind) return;
    if (!ROADS[road]?.includes(asked.kind)) take(Object.keys(ROADS).find((name) => ROADS[name].includes(asked.kind)));
    choose(asked.kind, asked.fields);
    holder.scrollIntoView({block: "nearest"});
  });
  if (road in ROADS) take(road);
  return [h("div", {class: "two"}, card("setup", h("div", {class: "modes"}, ...roads), steps), h("div", {class: "stack"}, holder, panel.node, jobList(KINDS, panel), pictures))];
}
