// One line for what just happened: an answer, a refusal, why a button does nothing.

import {$, mark, write} from "./dom.js";

const SHOWN_MS = 6000;
let timer = 0;

/** Say it to the person; `kind`: good, bad or plain. */
export function tell(text, kind = "plain") {
  const line = $("said");
  write(line, text);
  mark(line, "class", `${kind} shown`);
  clearTimeout(timer);
  timer = setTimeout(() => line.classList.remove("shown"), SHOWN_MS);
}

export function readyToSay() {
  $("said").onclick = () => $("said").classList.remove("shown");
}
