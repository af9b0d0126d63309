// What drives the run: each control sends one command, and says why it cannot where it cannot.

import {$, card, h, mark, write} from "./dom.js";
import {command, emergencyStop} from "./link.js";
import {isStale, on, state} from "./state.js";
import {tell} from "./said.js";
import {say} from "./words.js";

/** Why `name` cannot be done now, in words; empty: it can. */
export function whyNot(name) {
  const status = state.status;
  if (!state.connected) return say("why_offline");
  if (!state.run || !status) return say("why_no_run");
  if (isStale()) return say("why_stale");
  if (!status.can || status.can.includes(name)) return "";
  if (name === "reset") return status.stop?.unresettable || say("why_not_latched");
  if (status.latched) return status.stop?.phase === "latched" ? say("why_latched") : say("why_ended");
  if (status.stop?.phase === "reset") return say("why_reset");
  const mode = say(`mode_${state.run.mode}`);
  if (["start", "end", "label", "discard", "keep"].includes(name)) return whyNoEpisode(name, status, mode);
  if (name === "tell") return say("why_tell", {mode});
  if (name === "take" || name === "give") return say("why_take", {mode});
  return say("why_state", {state: stateWord(status)});
}

function whyNoEpisode(name, status, mode) {
  const now = status.episodes?.state;
  if (!now) return say("why_no_episodes", {mode});
  return say(name === "start" ? "why_episode_on" : "why_no_episode", {state: say(`episode_${now}`)});
}

export const stateWord = (status) => (status.latched ? say("state_latched") : say(`state_${status.state}`, {}, status.state));

/** Ask for it, and say what became of it; resolves to whether it was done. */
export async function act(name, args = {}) {
  const why = whyNot(name);
  if (why) {
    tell(`${say(`do_${name}`)}: ${why}`, "bad");
    return false;
  }
  const {ok, error, word} = await command(name, args);
  tell(`${say(`do_${name}`)}: ${ok ? say("done") : error || say(word)}`, ok ? "good" : "bad");
  return ok;
}

/** A button for a command: greyed with the reason where it cannot be done now. */
export function button(name, {key = "", args = () => ({}), kind = "", word = `do_${name}`, then = null} = {}) {
  const label = h("span", {"data-word": word});
  const node = h("button", {class: `do ${kind}`, "data-do": name, "data-key": key || null}, label);
  if (key) node.append(h("kbd", {}, key));
  node.onclick = async () => {
    const done = await act(name, args());
    if (done && then) then();
  };
  const look = () => {
    const why = whyNot(name);
    mark(node, "aria-disabled", why ? "true" : null);
    mark(node, "title", why || (key ? `${say(word)} (${key})` : say(word)));
  };
  for (const event of ["status", "hello", "connection", "language", "look"]) on(event, look);
  look();
  return node;
}

/** The emergency stop: never greyed, whatever is the case. */
export function eStop(node) {
  node.onclick = stopNow;
  const look = () => {
    const note = !state.connected ? "estop_offline" : !state.run ? "estop_no_run"
      : state.status?.latched ? (state.view === "live" ? "estop_latched" : "estop_latched_elsewhere") : isStale() ? "estop_stale" : "estop_key";
    write($("estop-note"), say(note));
    node.classList.toggle("latched", Boolean(state.status?.latched) && state.connected);
  };
  for (const event of ["status", "hello", "connection", "language", "look"]) on(event, look);
  look();
}

export async function stopNow() {
  $("estop").classList.add("pressed");
  setTimeout(() => $("estop").classList.remove("pressed"), 300);
  const {ok, error, word} = await emergencyStop();
  if (ok) tell(say("estop_done"), "good");
  else tell(say("estop_failed", {why: error || say(word)}), "bad");
}

function stateCard() {
  const word = h("strong", {id: "state"}), reason = h("p", {id: "reason"}), driving = h("p", {id: "driving"});
  const reset = h("div", {class: "row", id: "reset"}, button("reset", {kind: "warn"}));
  const next = h("p", {id: "reset-next"});
  const offered = (phase) => {
    reset.hidden = phase !== "latched"; // it is nowhere near the stop, and there only once that is latched
    next.hidden = !["latched", "reset"].includes(phase);
    write(next, next.hidden ? "" : say(phase === "latched" ? "reset_look" : "reset_done"));
  };
  on("status", (status) => {
    offered(status.stop?.phase);
    write(word, stateWord(status));
    mark(word, "data-state", status.latched ? "latched" : status.state);
    write(reason, status.reason || status.step);
    mark(reason, "title", reason.textContent);
    write(driving, say("driving", {who: say(`who_${status.driving}`, {}, status.driving || "–")}));
  });
  const nothing = () => {
    if (state.run && state.status) return;
    offered("");
    const stopped = state.connected && state.last?.latched; // what ended it matters more than that it has ended
    write(word, say(stopped ? "state_latched" : state.connected ? "state_none" : "state_unknown"));
    mark(word, "data-state", stopped ? "latched" : "none");
    write(reason, [stopped ? state.last.reason : "", state.ended].filter(Boolean).join(" · "));
    write(driving, "");
  };
  for (const event of ["hello", "gone", "connection", "language"]) on(event, nothing);
  nothing();
  return card("state", word, reason, driving, next, reset, h("div", {class: "row"}, button("hold"), button("resume", {kind: "go"})),
    h("div", {class: "row"}, button("pause", {key: "p"}), button("home")),
    h("div", {class: "row"}, button("quit", {key: "q"})));
}

function speedCard() {
  const slider = h("input", {type: "range", min: 5, max: 100, step: 5, value: 100, id: "speed", "aria-label": "speed"});
  const shown = h("output", {for: "speed"}, "100 %");
  let touched = false;
  slider.oninput = () => { touched = true; write(shown, `${slider.value} %`); };
  slider.onchange = async () => {
    await act("speed", {value: Number(slider.value) / 100});
    touched = false;
  };
  const look = () => {
    const why = whyNot("speed");
    slider.disabled = Boolean(why);
    mark(slider.parentElement, "title", why);
    const speed = state.status?.speed;
    if (!touched && Number.isFinite(speed)) {
      slider.value = Math.round(speed * 100);
      write(shown, `${Math.round(speed * 100)} %`);
    }
  };
  const made = card("speed", h("div", {class: "row slide"}, slider, shown));
  for (const event of ["status", "hello", "connection", "language", "look"]) on(event, look);
  return made;
}

function promptCard() {
  const now = h("p", {id: "instruction"});
  const field = h("input", {id: "prompt", "data-placeholder": "prompt_new", maxlength: "400", autocomplete: "off", enterkeyhint: "send"});
  const tellIt = button("tell", {args: () => ({text: field.value}), kind: "go", then: () => { field.value = ""; }});
  field.onkeydown = (event) => event.key === "Enter" && tellIt.click();
  on("status", (status) => write(now, status.instruction || status.prompt || "–"));
  return card("prompt", now, h("div", {class: "row"}, field, tellIt));
}

/** What a person does with an episode by one key: the terminal's. */
export const episodeActions = {
  toggle: () => act(state.status?.episodes?.state === "recording" ? "end" : "start", task()),
  success: () => labelled("success"),
  failure: () => labelled("failure"),
  pause: () => act(state.status?.can?.includes("pause") ? "pause" : "resume"),
  take: () => act(state.status?.can?.includes("give") ? "give" : "take"),
  again: async () => (await act("discard")) && act("start", task()),
};

const task = () => {
  const said = $("task")?.value.trim();
  return said && state.status?.episodes?.state !== "recording" ? {task: said} : {};
};
const labelled = (label) => act(state.status?.episodes?.state === "recording" ? "end" : "label", {label});

function episodeCard() {
  const line = h("p", {id: "episode"}), dot = h("i", {class: "dot"});
  on("status", (status) => {
    const now = status.episodes;
    write(line, now ? say("episode_line", {
      state: say(`episode_${now.state}`), number: now.episode ?? "", seconds: (now.elapsed_s || 0).toFixed(1),
      recorded: now.recorded ?? 0, wanted: now.wanted ? ` / ${now.wanted}` : "",
    }) : status.episode || say("episode_none"));
    mark(dot, "data-on", now?.state === "recording");
    mark(line, "title", now?.trouble || null);
  });
  const toggle = button("start", {key: "SPACE", kind: "go"}), end = button("end", {key: "SPACE", kind: "warn"});
  const good = button("label", {key: "s", word: "do_success"}), bad = button("label", {key: "f", word: "do_failure"});
  good.onclick = episodeActions.success;
  bad.onclick = episodeActions.failure;
  toggle.onclick = episodeActions.toggle;
  const again = button("discard", {word: "do_again"});
  again.onclick = episodeActions.again;
  const made = card("episode", h("p", {class: "line"}, dot, line),
    h("input", {id: "task", "data-placeholder": "task_next", maxlength: "400", autocomplete: "off"}),
    h("div", {class: "row"}, toggle, end), h("div", {class: "row"}, good, bad),
    h("div", {class: "row three"}, button("keep", {key: "⏎"}), button("discard", {key: "d"}), again));
  on("status", (status) => { made.hidden = !status.episodes && !status.episode; }); // in a mode whose episodes are its own
  return made;
}

function handOverCard() {
  return card("handover", h("div", {class: "row"}, button("take", {key: "TAB", kind: "warn"}), button("give", {key: "TAB", kind: "go"})));
}

export const controlCards = () => [stateCard(), episodeCard(), handOverCard(), promptCard(), speedCard()];
