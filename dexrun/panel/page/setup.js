// From the kit's box to a checked configuration: the set-up commands, one after another, answered here.

import {card, fill, h, mark} from "./dom.js";
import {picture} from "./api.js";
import {form} from "./forms.js";
import {jobList, jobPanel, startJob} from "./jobs.js";
import {on, state} from "./state.js";
import {translate} from "./words.js";

const STEPS = ["find-ports", "setup-motors", "find-cameras", "calibrate", "joints", "init", "doctor", "collect"];

/** Files that find-cameras says it has saved. */
const taken = (job) => [...new Set(job.output.join("\n").match(/\b\d+\.jpg\b/g))];

const shown = ([id, ...files]) => files.map((file) => {
  const image = h("img", {alt: file});
  picture(`/api/jobs/${id}/file/${file}`).then((address) => { image.src = address; }, () => {});
  return h("figure", {class: "film"}, image, h("b", {}, file));
});

export function setupView() {
  const pictures = h("div", {class: "films"}), holder = h("div", {});
  const panel = jobPanel({more: (job) => fill(pictures, job.folder && job.kind === "find-cameras" ? [job.id, ...taken(job)] : [], shown)});
  const steps = h("ol", {class: "steps"}, ...STEPS.map((kind) => h("li", {}, h("button", {class: "step", "data-step": kind, onclick: () => choose(kind)},
    h("b", {"data-word": `job_${kind}`}), h("small", {"data-word": `step_${kind}`})))));

  function choose(kind) {
    for (const step of steps.querySelectorAll("button")) mark(step, "aria-current", step.dataset.step === kind ? "step" : null);
    const made = form(kind, {usual: kind === "find-cameras" ? {to: "cameras"} : {}, word: "start_step", submit: async (args) => panel.follow((await startJob(kind, args)).id)});
    holder.replaceChildren(h("section", {class: "card"}, h("h2", {"data-word": `job_${kind}`}), h("p", {class: "muted", "data-word": `step_${kind}`}), made.node));
    translate(holder);
  }

  const done = () => {
    for (const step of steps.querySelectorAll("button")) {
      const last = state.jobs.find((job) => job.kind === step.dataset.step);
      mark(step, "data-state", last ? last.state : null);
    }
  };
  on("jobs", done);
  choose(STEPS[0]);
  return [h("div", {class: "two"}, card("setup", steps), h("div", {class: "stack"}, holder, jobList(STEPS, panel), panel.node, pictures))];
}
