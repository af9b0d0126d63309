// The page: its head, its views, and what is the same on all of them.

import {$, h, mark, write} from "./dom.js";
import {connect} from "./link.js";
import {emit, isStale, on, state, age} from "./state.js";
import {chooseLanguage, language, say, translate} from "./words.js";
import {eStop} from "./controls.js";
import {listenToKeys, showHelp} from "./keys.js";
import {readyToSay} from "./said.js";
import {liveView} from "./live.js";
import {startView} from "./start.js";
import {dataView} from "./data.js";
import {trainView} from "./train.js";
import {evaluateView} from "./evaluate.js";
import {setupView} from "./setup.js";

const VIEWS = {live: liveView, start: startView, data: dataView, train: trainView, evaluate: evaluateView, setup: setupView};
const made = {};

function make(view) {
  made[view] = h("div", {class: "view", id: `view-${view}`}, ...VIEWS[view]());
  $("views").append(made[view]);
  translate(made[view]);
}

function show(name) {
  const view = name in VIEWS ? name : "live";
  if (!made[view]) make(view);
  for (const [other, node] of Object.entries(made)) node.hidden = other !== view;
  for (const tab of $("tabs").children) mark(tab, "aria-selected", tab.dataset.view === view);
  $("tabs").querySelector("[aria-selected=true]")?.scrollIntoView({block: "nearest", inline: "center"});
  state.view = view;
  emit("view", view);
}

function showLink() {
  const node = $("link"), seconds = age() / 1000;
  let word = "connected", kind = "good";
  if (!state.connected) [word, kind] = [state.refused ? "refused" : "disconnected", "bad"];
  else if (!state.run) [word, kind] = ["noRun", "idle"];
  else if (isStale()) [word, kind] = ["stale", "bad"];
  const delay = Number.isFinite(state.delay) ? state.delay.toFixed(0) : "–";
  write(node, say(word, {delay, age: seconds < 1000 ? seconds.toFixed(1) : "–", why: state.refused}));
  mark(node, "class", kind);
  const root = document.documentElement.classList, before = root.contains("stale");
  if (root.toggle("stale", isStale()) !== before) emit("look"); // nothing may come that says so
  root.toggle("offline", !state.connected);
  write($("run"), state.run ? `${say(`mode_${state.run.mode}`)} · ${state.run.run}` : "");
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("dexrun.theme", theme);
  emit("theme");
  write($("theme"), theme === "dark" ? "☀" : "☾");
}

function setLanguage(chosen) {
  chooseLanguage(chosen);
  localStorage.setItem("dexrun.language", chosen);
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  write($("language"), chosen === "zh" ? "English" : "中文");
  translate(document.body);
  emit("language");
}

function begin() {
  const systems = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
  setTheme(localStorage.getItem("dexrun.theme") || systems);
  for (const name of Object.keys(VIEWS)) {
    $("tabs").append(h("a", {href: `#${name}`, role: "tab", "data-view": name, "data-word": `tab_${name}`}));
  }
  $("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  $("language").onclick = () => setLanguage(language() === "zh" ? "en" : "zh");
  $("help-button").onclick = showHelp;
  readyToSay();
  eStop($("estop"));
  listenToKeys();
  setLanguage(localStorage.getItem("dexrun.language") || (navigator.language.startsWith("zh") ? "zh" : "en"));
  on("hello", () => {
    const wanted = state.panel.language;
    if (!localStorage.getItem("dexrun.language.chosen") && ["en", "zh"].includes(wanted)) setLanguage(wanted);
  });
  $("language").addEventListener("click", () => localStorage.setItem("dexrun.language.chosen", "yes"));
  // A click leaves no focus behind: SPACE is a key of the episode, not of the button pressed last.
  document.addEventListener("click", (event) => event.detail > 0 && event.target.closest("button, a")?.blur());
  addEventListener("hashchange", () => show(location.hash.slice(1)));
  for (const event of ["connection", "hello", "status", "language"]) on(event, showLink);
  setInterval(showLink, 250);
  make("live"); // it hears what the run says, whichever view is looked at
  show(location.hash.slice(1));
  connect();
}

begin();
