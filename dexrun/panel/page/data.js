// Data sets: looked through, played back, and put in order.

import {card, h, mark, write} from "./dom.js";
import {read} from "./api.js";
import {on} from "./state.js";
import {form} from "./forms.js";
import {jobList, jobPanel, startJob} from "./jobs.js";
import {playback} from "./playback.js";
import {wanted} from "./road.js";
import {tell} from "./said.js";
import {token} from "./link.js";
import {language, say, translate} from "./words.js";

const KINDS = ["check", "drop", "undo", "merge", "relabel", "export"];

export function dataView() {
  const sets = h("div", {class: "list", id: "sets"}), rows = h("tbody", {}), about = h("p", {class: "muted"});
  const report = h("a", {class: "do", target: "_blank", rel: "noopener", "data-word": "open_report", hidden: true});
  const player = playback(), panel = jobPanel({more: (job) => {
    report.hidden = !job.report || Boolean(token); // an address alone has no token
    mark(report, "href", `/api/jobs/${job.id}/report`);
    if (job.state !== "running") changed(job);
  }});
  const forms = h("div", {});
  let open = null, seenJob = null;

  function changed(job) {
    if (seenJob === job.id) return;
    seenJob = job.id;
    list();
    if (open) show(open);
  }

  async function list() {
    try {
      const {data} = await read("/api/data"), asked = wanted("data");
      sets.replaceChildren(...data.map((set) => h("button", {class: "item", "aria-pressed": open?.id === set.id, onclick: () => show(set)},
        h("b", {}, set.path), h("small", {}, `${say(`kind_${set.kind}`, {}, set.kind)} · ${new Date(1000 * set.changed_s).toLocaleString(language() === "zh" ? "zh-CN" : undefined)}`))));
      if (!data.length) sets.append(h("p", {class: "muted", "data-word": "no_data"}));
      translate(sets);
      const set = asked?.data ? data.find((each) => each.path === asked.data) : asked || !open ? data[0] : null;
      if (set) await show(set);
    } catch (error) { tell(error.message, "bad"); }
  }

  async function show(set) {
    open = set;
    for (const item of sets.children) mark(item, "aria-pressed", item.firstChild.textContent === set.path);
    try {
      const found = await read(`/api/data/${set.id}/episodes`);
      write(about, say("data_line", {format: found.format, count: found.episodes.length, rate: found.rate_hz}));
      rows.replaceChildren(...found.episodes.map((episode) => episodeRow(set, episode)),
        ...Object.entries(found.left_out).map(([name, why]) => h("tr", {class: "muted"}, h("td", {}), h("td", {colspan: "4"}, `${name}: ${why}`))));
      mark(drop, "disabled", null);
    } catch (error) {
      write(about, error.message);
      rows.replaceChildren();
    }
    tools.hidden = false;
    chosen();
  }

  function episodeRow(set, episode) {
    const box = h("input", {type: "checkbox", "data-number": String(episode.number), "aria-label": episode.name});
    box.onclick = (event) => event.stopPropagation();
    box.onchange = chosen;
    const row = h("tr", {class: "pick", tabindex: "0"}, h("td", {}, box), h("td", {title: episode.name}, episode.name.split("/").at(-1).replace(/\.mcap$/, "")), h("td", {}, `${episode.seconds.toFixed(1)} s`),
      h("td", {class: episode.label === "success" ? "yes" : episode.label === "failure" ? "no" : ""}, episode.label ? say(`value_${episode.label}`, {}, episode.label) : "–"), h("td", {}, episode.task || ""));
    row.onclick = () => {
      for (const other of rows.children) mark(other, "aria-selected", other === row);
      player.open(set.id, episode.number);
    };
    row.onkeydown = (event) => event.key === "Enter" && row.click();
    return row;
  }

  const picked = () => [...rows.querySelectorAll("input:checked")].map((box) => box.dataset.number);
  function chosen() {
    const count = picked().length;
    write(drop, say("drop_chosen", {count}));
    drop.disabled = count === 0;
    mark(drop, "title", count ? null : say("why_none_chosen"));
  }

  const run = (kind, args) => startJob(kind, args).then((job) => panel.follow(job.id), (error) => tell(error.message, "bad"));
  const plain = (kind) => h("button", {class: "do", "data-word": `job_${kind}`, onclick: () => run(kind, {data: open.path})});
  const asked = (kind, names, usual) => h("button", {class: "do", "data-word": `job_${kind}`, onclick: () => {
    const made = form(kind, {names, usual: usual(), word: `job_${kind}`, submit: async (args) => { const job = await startJob(kind, args); panel.follow(job.id); }});
    forms.replaceChildren(h("section", {class: "card"}, h("h2", {"data-word": `job_${kind}`}), made.node));
    translate(forms);
  }});
  const drop = h("button", {class: "do warn", onclick: () => run("drop", {data: open.path, episodes: picked().join(",")})});
  const tools = h("div", {class: "row wrap", hidden: true}, drop, plain("check"), plain("undo"),
    asked("relabel", null, () => ({data: open.path, episodes: picked().join(",")})), asked("export", ["runs", "format", "to"], () => ({runs: open.path})),
    asked("merge", ["data", "to"], () => ({data: open.path})));

  on("view", (view) => view === "data" && list());
  on("language", () => list().then(() => open && show(open)));
  list();
  const head = h("tr", {}, h("th", {}), ...["episode", "length", "label", "task"].map((word) => h("th", {"data-word": word})));
  return [h("div", {class: "two"},
    card("data_sets", sets),
    h("div", {class: "stack"}, card("episodes", about, tools, h("div", {class: "scroll"}, h("table", {class: "episodes"}, h("thead", {}, head), rows))),
      player.node, forms, jobList(KINDS, panel), panel.node, report))];
}
