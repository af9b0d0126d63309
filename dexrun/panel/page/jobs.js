// What the server runs for a person: started, looked at, answered, stopped.

import {fill, h, mark, write} from "./dom.js";
import {post, read} from "./api.js";
import {on, state} from "./state.js";
import {tell} from "./said.js";
import {say, translate} from "./words.js";

const LOOK_MS = 700;

export async function startJob(kind, args) {
  const job = await post("/api/jobs", {kind, args});
  tell(say("job_started", {kind: say(`job_${kind}`), id: job.id}), "good");
  return job;
}

/** A job's output, with a line for its answers; `more(job)` shows what else is known of it. */
export function jobPanel({more = null} = {}) {
  const head = h("p", {class: "job-head"}), output = h("pre", {class: "output", tabindex: "0"});
  const field = h("input", {class: "answer", autocomplete: "off", "data-placeholder": "answer_here", maxlength: "400"});
  const enter = h("button", {class: "do", type: "submit", "data-word": "enter"});
  const stop = h("button", {class: "do warn", "data-word": "stop_job"});
  const ask = h("form", {class: "row"}, field, enter);
  const node = h("div", {class: "job", hidden: true}, h("div", {class: "row between"}, head, stop), output, ask);
  let shown = null, timer = 0;

  async function look() {
    clearTimeout(timer);
    if (shown === null) return;
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
    write(head, say("job_line", {kind: say(`job_${job.kind}`), id: job.id, state: say(`job_state_${job.state}`), code: job.code === null ? "" : ` (${job.code})`}));
    mark(node, "data-state", job.state);
    write(output, (job.output || []).join("\n"));
    if (atEnd) output.scrollTop = output.scrollHeight;
    const running = job.state === "running";
    stop.disabled = !running;
    ask.hidden = !(job.asks && running);
    if (more) more(job);
  }

  stop.onclick = () => post(`/api/jobs/${shown}/stop`).then(look, (error) => tell(error.message, "bad"));
  ask.onsubmit = (event) => {
    event.preventDefault();
    post(`/api/jobs/${shown}/input`, {line: field.value}).then(() => { field.value = ""; look(); }, (error) => tell(error.message, "bad"));
  };
  on("jobs", look);
  on("language", look);
  translate(node);
  return {node, follow(id) {
    shown = id;
    node.hidden = false;
    write(output, "");
    node.scrollIntoView({block: "nearest"});
    look();
  }};
}

/** The jobs of some kinds, to come back to. */
export function jobList(kinds, panel) {
  const list = h("div", {class: "chips"});
  const draw = () => {
    const mine = state.jobs.filter((job) => kinds.includes(job.kind)).slice(0, 8);
    fill(list, [mine.map((job) => [job.id, job.state]), say("done")], () => mine.map((job) => h("button", {
      class: "chip", "data-state": job.state, onclick: () => panel.follow(job.id),
    }, `${say(`job_${job.kind}`)} ${job.id} · ${say(`job_state_${job.state}`)}`)));
  };
  on("jobs", draw);
  on("language", draw);
  draw();
  return list;
}
