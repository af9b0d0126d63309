// The live view: controls at one side, what is seen and measured at the other.

import {h} from "./dom.js";
import {watch} from "./link.js";
import {on, state} from "./state.js";
import {controlCards} from "./controls.js";
import {jogCard} from "./jog.js";
import {camerasCard, wantedStreams} from "./pictures.js";
import {plotsCard} from "./plots.js";
import {armCard, wantsBodies, wantsCloud} from "./arm.js";
import {healthCard, servosCard} from "./health.js";
import {roadCard} from "./road.js";
import {planCard, questionsCard} from "./story.js";
import {translate} from "./words.js";

/** Nothing is sent for what nobody looks at. */
function lookAgain() {
  const looking = state.view === "live" && !document.hidden && state.run !== null;
  watch(looking ? {streams: wantedStreams(), bodies: wantsBodies(), cloud: wantsCloud()} : {streams: {}, bodies: false, cloud: false});
}

export function liveView() {
  for (const event of ["watch", "view", "hello"]) on(event, lookAgain);
  document.addEventListener("visibilitychange", lookAgain);
  on("fresh", translate);
  return [
    h("aside", {id: "controls"}, ...controlCards(), jogCard()),
    h("div", {id: "seen"}, roadCard(), camerasCard(), plotsCard()),
    h("div", {id: "known"}, armCard(), healthCard(), planCard(), questionsCard(), servosCard()),
  ];
}
