// What the server runs for a person: started, looked at, answered, stopped.

import {fill, h, mark, write} from "./dom.js";
import {post, read} from "./api.js";
import {asAsked} from "./asked.js";
import {on, state} from "./state.js";
import {after, ways} from "./road.js";
import {tell} from "./said.js";
import {language, say, translate} from "./words.js";

const LOOK_MS = 700, READ_MS = 500;
const TABLES = ["joints", "calibrate", "eval"]; // their lines are not broken

export async function startJob(kind, args) {
  const job = await post("/api/jobs", {kind, args});
  tell(say("job_started", {kind: say(`job_${kind}`), id: job.id}), "good");
  return job;
}

/** What a command asks, with a button or a field for each answer; `answer(line)` gives it. */
function question(asked, answer) {
  const row = (...nodes) => h("div", {class: "row wrap"}, ...nodes);
  const button = (line, props, ...words) => {
    const made = h("button", {class: "do", type: "button", "data-answer": line || "enter", disabled: true, onclick: () => answer(line), ...props}, ...words);
    setTimeout(() => { made.disabled = false; }, READ_MS); // the second half of a double click is no answer to this one
    return made;
  };
  if (asked.watch) return [h("p", {"data-word": "watching"}), row(button("", {class: "do go", "data-word": "enough"}))];
  if (asked.enter) return [h("p", {}, asAsked(asked.enter)), row(button("", {class: "do go", "data-word": "go_on"}))];
  const choices = asked.choices || [];
  if (choices.length) {
    return [h("p", {}, asAsked(asked.line).replace(/ ?\[[^\]]*\]$/, "")),
      row(...choices.map(([line, meaning], index) => button(line, {class: index ? "do" : "do go"}, asAsked(meaning))))];
  }
  const field = h("input", {class: "answer", autocomplete: "off", "data-placeholder": "answer_here", maxlength: "400"});
  const form = h("form", {class: "row"}, field, h("button", {class: "do go", type: "submit", "data-word": "enter"}));
  form.onsubmit = (event) => {
    event.preventDefault();
    answer(field.value);
  };
  return [h("p", {}, asAsked(asked.line)), form];
}

/** A job's output, and what it asks; `more(job)` shows what else is known of it, `next(job)` gives the ways on. */
export function jobPanel({more = null, next = after} = {}) {
  const head = h("p", {class: "job-head"}), output = h("pre", {class: "output", tabindex: "0"});
  const stop = h("button", {class: "do warn", "data-word": "stop_job"});
  const ask = h("div", {class: "question", role: "status"}), failed = h("p", {class: "muted", "data-word": "job_failed_more"});
  const onward = h("div", {class: "row wrap next"});
  const node = h("div", {class: "job", hidden: true}, h("div", {class: "row between"}, head, stop), ask, output, failed, onward);
  let shown = null, timer = 0;

  async function look() {
    clearTimeout(timer);
    if (!shown) return; // 0: something else is looked at
    const asked = shown;
    try {
      const job = await read(`/api/jobs/${asked}`);
      if (asked === shown) show(job);
      if (job.state === "running") timer = setTimeout(look, LOOK_MS);
    } catch (error) {
      write(head, error.message);
      timer = setTimeout(look, 3 * LOOK_MS);
    }
  }

  function show(job) {
    const atEnd = output.scrollTop + output.clientHeight >= output.scrollHeight - 30;
    const seconds = job.seconds === undefined ? "" : ` · ${duration(job.seconds)}`;
    write(head, say("job_line", {kind: say(`job_${job.kind}`), id: job.id, state: say(`job_state_${job.state}`), code: job.code ? ` (${job.code})` : "", seconds}));
    const ended = node.dataset.state === "running" && job.state !== "running";
    mark(node, "data-state", job.state);
    mark(node, "data-kind", job.kind);
    write(output, (job.output || []).join("\n"));
    if (atEnd) output.scrollTop = output.scrollHeight;
    const running = job.state === "running";
    stop.hidden = !running;
    failed.hidden = job.state !== "failed";
    mark(output, "data-table", TABLES.includes(job.kind) || null);
    fill(ask, running && job.asked ? {...job.asked, language: language()} : null, (asked) => (asked ? question(asked, (line) => answer(asked, line)) : []));
    fill(onward, job.state === "done" ? next(job) : [], ways);
    if (more) more(job);
    translate(node);
    if (ended) onward.scrollIntoView({block: "nearest"});
  }

  /** A question is answered once: whoever presses twice does not answer the next one. */
  function answer(asked, line) {
    for (const each of ask.querySelectorAll("button, input")) each.disabled = true;
    post(`/api/jobs/${shown}/input`, {line, question: asked.question}).then(look, (error) => {
      tell(error.message, "bad");
      for (const each of ask.querySelectorAll("button, input")) each.disabled = false;
      look();
    });
  }

  stop.onclick = () => post(`/api/jobs/${shown}/stop`).then(look, (error) => tell(error.message, "bad"));
  on("jobs", look);
  on("language", look);
  return {node, shows: () => shown, leave() { [shown, node.hidden] = [0, true]; }, follow(id, {quietly = false} = {}) {
    shown = id;
    node.hidden = false;
    write(output, "");
    fill(ask, null, () => []);
    fill(onward, [], ways);
    if (!quietly) node.scrollIntoView({block: "nearest"});
    look();
  }};
}

const duration = (seconds) => (seconds < 100 ? `${seconds.toFixed(0)} s` : say("minutes", {count: Math.floor(seconds / 60)}));

/** The jobs of some kinds, to come back to: a page that is opened anew shows the one that runs, or the `last` one. */
export function jobList(kinds, panel, {last = false} = {}) {
  const list = h("div", {class: "chips"});
  const draw = () => {
    const mine = state.jobs.filter((job) => kinds.includes(job.kind)).slice(0, 8);
    const underWay = mine.find((job) => job.state === "running") || (last && mine[0]);
    if (underWay && panel.shows() === null) panel.follow(underWay.id, {quietly: true});
    fill(list, [mine.map((job) => [job.id, job.state]), say("done")], () => mine.map((job) => h("button", {
      class: "chip", "data-state": job.state, onclick: () => panel.follow(job.id),
    }, `${say(`job_${job.kind}`)} ${job.id} · ${say(`job_state_${job.state}`)}`)));
  };
  on("jobs", draw);
  on("language", draw);
  draw();
  return list;
}
