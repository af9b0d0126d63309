// The terminal's keys, and Escape, which stops the arm whatever has the focus.

import {$, h} from "./dom.js";
import {act, episodeActions, stopNow} from "./controls.js";
import {state} from "./state.js";
import {say} from "./words.js";

const KEYS = {
  " ": ["toggle", episodeActions.toggle],
  ArrowRight: ["toggle", episodeActions.toggle],
  s: ["success", episodeActions.success],
  f: ["failure", episodeActions.failure],
  d: ["discard", () => act("discard")],
  Backspace: ["discard", () => act("discard")],
  ArrowLeft: ["discard", () => act("discard")],
  Enter: ["keep", () => act("keep")],
  Tab: ["take", episodeActions.take],
  t: ["take", episodeActions.take],
  p: ["pause", episodeActions.pause],
  q: ["quit", () => act("quit")],
  "?": ["help", () => showHelp()],
};
const SHOWN = [["Esc", "key_estop"], ["Space", "key_toggle"], ["s", "key_success"], ["f", "key_failure"], ["d", "key_discard"],
  ["Enter", "key_keep"], ["Tab", "key_take"], ["p", "key_pause"], ["q", "key_quit"], ["?", "key_help"]];

/** Whether whatever has the focus wants `key` for itself: a slider wants its arrows, and no letters. */
function wanted(key) {
  const focus = document.activeElement;
  if ($("help").open) return true;
  if (focus === null || focus === document.body) return false;
  if (focus.matches("input[type=range]")) return key.startsWith("Arrow") || key === "Tab";
  return focus.matches("input, select, textarea, button, a, summary, [tabindex]");
}

function pressed(event) {
  if (event.key === "Escape") {
    if (event.repeat) return;
    stopNow(); // a window that is open closes as well
    return;
  }
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || wanted(event.key) || state.view !== "live") return;
  const known = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key]; // whatever Caps Lock says
  if (!known) return;
  event.preventDefault();
  known[1]();
}

export function listenToKeys() {
  addEventListener("keydown", pressed, {capture: true});
}

export function showHelp() {
  const rows = SHOWN.map(([key, word]) => h("tr", {}, h("td", {}, h("kbd", {}, key)), h("td", {}, say(word))));
  const close = h("button", {onclick: () => $("help").close()}, say("close"));
  $("help").replaceChildren(h("h2", {}, say("help")), h("table", {}, h("tbody", {}, ...rows)), h("p", {}, say("help_more")), close);
  $("help").showModal();
}
