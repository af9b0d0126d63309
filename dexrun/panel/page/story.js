// What is planned and what came of it: plan, attempts, the planner's questions.

import {card, fill, fixed, h, write} from "./dom.js";
import {picture} from "./api.js";
import {on, state} from "./state.js";
import {say} from "./words.js";

const yes = (value) => h("td", {class: value ? "yes" : value === false ? "no" : ""}, value ? "✓" : value === false ? "✗" : "–");

export function planCard() {
  const list = h("ol", {id: "plan"}), says = h("p", {id: "reasoning"});
  const body = h("tbody", {id: "attempts"});
  const table = h("table", {}, h("thead", {}, h("tr", {}, ...["instruction", "attempt", "grasped", "completed"].map((word) => h("th", {"data-word": word})))), body);
  const made = card("plan", says, list, table);
  const show = (status) => {
    const plan = status.plan || [], attempts = status.attempts || [];
    write(says, status.reasoning || "");
    fill(list, plan, () => plan.map((step) => h("li", {}, typeof step === "string" ? step : JSON.stringify(step))));
    fill(body, attempts, () => attempts.map((each) => h("tr", {}, h("td", {}, each.instruction), h("td", {}, String(each.attempt ?? "")), yes(each.grasped), yes(each.completed))));
    table.hidden = attempts.length === 0;
    made.hidden = plan.length + attempts.length === 0 && !status.reasoning;
  };
  made.hidden = true;
  on("status", show);
  return made;
}

/** Pictures are fetched once, when a person opens a question. */
function withPictures(question, run) {
  const shown = h("div", {class: "thumbs"});
  const answer = typeof question.answer === "string" ? question.answer : JSON.stringify(question.answer, null, 1);
  const node = h("details", {class: question.error ? "bad" : ""},
    h("summary", {}, h("span", {}, question.question), h("small", {}, `${fixed(question.latency_s)} s`)),
    h("pre", {}, question.error || answer || "–"), shown);
  node.addEventListener("toggle", () => {
    if (!node.open || shown.children.length) return;
    for (const file of question.files || []) {
      picture(`/api/runs/${encodeURIComponent(run)}/file/${file.split("/").map(encodeURIComponent).join("/")}`)
        .then((address) => shown.append(h("img", {src: address, alt: file})), () => shown.append(h("small", {}, say("no_picture"))));
    }
  });
  return node;
}

export function questionsCard() {
  const list = h("div", {id: "questions"}), known = new Map();
  const made = card("questions", list);
  made.hidden = true;
  on("status", (status) => {
    const asked = status.questions || [];
    made.hidden = asked.length === 0;
    for (const question of asked) {
      const key = `${state.run?.run} ${question.id}`, content = JSON.stringify(question);
      const before = known.get(key);
      if (before?.content === content) continue;
      const node = withPictures(question, state.run?.run);
      if (before) { node.open = before.node.open; before.node.replaceWith(node); } else list.prepend(node);
      known.set(key, {content, node});
    }
    while (list.children.length > 20) list.lastChild.remove();
  });
  on("hello", () => { if (state.run && ![...known.keys()].some((key) => key.startsWith(state.run.run))) { list.replaceChildren(); known.clear(); } });
  return made;
}
