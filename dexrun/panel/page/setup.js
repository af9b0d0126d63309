// From the kit's box to a checked configuration: the set-up commands, one after another, answered here.

import {card, fill, h, mark} from "./dom.js";
import {form} from "./forms.js";
import {jobList, jobPanel, startJob} from "./jobs.js";
import {on, state} from "./state.js";
import {translate} from "./words.js";

const STEPS = ["find-ports", "setup-motors", "find-cameras", "calibrate", "joints", "init", "doctor", "collect"];

export function setupView() {
  const panel = jobPanel(), holder = h("div", {});
  const steps = h("ol", {class: "steps"}, ...STEPS.map((kind) => h("li", {}, h("button", {class: "step", "data-step": kind, onclick: () => choose(kind)},
    h("b", {"data-word": `job_${kind}`}), h("small", {"data-word": `step_${kind}`})))));

  function choose(kind) {
    for (const step of steps.querySelectorAll("button")) mark(step, "aria-current", step.dataset.step === kind ? "step" : null);
    const made = form(kind, {word: "start_step", submit: async (args) => panel.follow((await startJob(kind, args)).id)});
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
  return [h("div", {class: "two"}, card("setup", steps), h("div", {class: "stack"}, holder, jobList(STEPS, panel), panel.node))];
}
