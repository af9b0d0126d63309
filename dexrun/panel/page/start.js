// Starting a run: how it is driven, by which policy, into which data set.

import {card, h, mark} from "./dom.js";
import {choose as known} from "./api.js";
import {on, state} from "./state.js";
import {form} from "./forms.js";
import {jobList, jobPanel, startJob} from "./jobs.js";
import {wanted, ways} from "./road.js";
import {translate} from "./words.js";

const FIELDS = {
  grasp: ["prompt", "config"],
  teleop: ["task", "count", "resume", "config"],
  rollout: ["task", "policy", "checkpoint", "count", "config"],
};

export function startView() {
  const panel = jobPanel(), holder = h("div", {});
  const first = h("div", {class: "question", hidden: true}, h("p", {"data-word": "no_config"}), h("div", {class: "row wrap"}, ...ways([{word: "next_setup", view: "setup"}])));
  let started = false;
  const choices = Object.keys(FIELDS).map((mode) => h("button", {class: "mode", "data-mode": mode, onclick: () => choose(mode)},
    h("strong", {"data-word": `mode_${mode}`}), h("small", {"data-word": `mode_${mode}_more`})));

  function choose(mode, usual = {}) {
    for (const each of choices) mark(each, "aria-pressed", each.dataset.mode === mode);
    const made = form("run", {
      names: FIELDS[mode], usual, word: "start_run",
      submit: async (args) => {
        const job = await startJob("run", {...args, mode});
        started = true;
        panel.follow(job.id);
      },
    });
    holder.replaceChildren(made.node);
    translate(holder);
  }

  // A run that was started here is looked at as soon as it lives.
  on("hello", () => {
    if (started && state.run) location.hash = "#live";
    started = started && !state.run;
  });
  on("view", (view) => {
    if (view !== "start") return;
    known().then(({configs}) => { first.hidden = configs.length > 0; }, () => {});
    const asked = wanted("start");
    if (asked) choose(asked.mode || "grasp", asked.fields);
  });
  choose("grasp");
  return [h("div", {class: "narrow"}, card("start", first, h("div", {class: "modes"}, ...choices), holder), jobList(["run"], panel), panel.node)];
}
