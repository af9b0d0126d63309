// The WebSocket to the panel's server: it is opened again whenever it closes.

import {emit, state} from "./state.js";

const PROTOCOL = "dexrun.1";
const PING_MS = 500, SILENT_MS = 4000, ANSWER_MS = 3000, STOP_MS = 30000;
const AGAIN_MS = [200, 500, 1000, 2000];
const OFTEN = ["status", "ticks", "bodies"], TICKS = ["tick", "t_s", "position", "target", "force", "period_ms"];

export const token = new URLSearchParams(location.hash.slice(1)).get("token")
  || sessionStorage.getItem("dexrun.token") || "";
if (token) {
  sessionStorage.setItem("dexrun.token", token);
  history.replaceState(null, "", location.pathname); // nobody reads it over a shoulder
}

let socket = null, tries = 0, numbers = 0, pings = 0, pinged = 0, pingedAt = new Map(), heard = 0;
let waiting = new Map(), watching = {streams: {}, bodies: false, cloud: false}, stopWanted = null, stoppedRun = "";
let pending = {}, timer = 0, cost = 0;

function send(message) {
  if (socket === null || socket.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(message));
  return true;
}

/** Say what is to be shown from now on. */
export function watch(wanted) {
  if (JSON.stringify(wanted) === JSON.stringify(watching)) return;
  watching = wanted;
  send({type: "watch", ...wanted});
}

/** The next picture of this stream may come. */
export const seen = (stream) => send({type: "seen", stream});

/** Ask the run for something; resolves to `{ok, error}`, in any case. The run is told which stop this page knows of:
 * what was pressed before a newer one, and comes late, has no effect. */
export function command(name, args = {}) {
  const id = ++numbers, seen = state.status?.stop?.number ?? 0;
  if (!send({type: "command", id, name, args, seen})) return Promise.resolve({ok: false, error: "", word: "notSent"});
  return new Promise((resolve) => {
    const timer = setTimeout(() => settle(id, {ok: false, error: "", word: "noAnswer"}), ANSWER_MS);
    waiting.set(id, {resolve, timer});
  });
}

/** The emergency stop. Until the run has confirmed it, it is sent again whenever the connection comes back. */
export async function emergencyStop() {
  stopWanted = {at: performance.now(), run: state.run?.run};
  const {run} = stopWanted, answer = await command("stop");
  if (answer.ok) [stopWanted, stoppedRun] = [null, run];
  return answer;
}

function stopAgain() {
  if (stopWanted === null || state.run?.run !== stopWanted.run) return;
  if (performance.now() - stopWanted.at < STOP_MS) command("stop").then(({ok}) => { if (ok) stopWanted = null; });
  else stopWanted = null;
}

function settle(id, answer) {
  const asked = waiting.get(id);
  if (!asked) return;
  waiting.delete(id);
  clearTimeout(asked.timer);
  asked.resolve(answer);
}

function ping() {
  const now = performance.now();
  if (now - pinged < PING_MS) return;
  pinged = now;
  if (pingedAt.size >= 20 || !send({type: "ping", n: ++pings})) return;
  pingedAt.set(pings, now);
  state.asked = pingedAt.values().next().value;
}

function take(message) {
  if (message.type === "pong") {
    const sent = pingedAt.get(message.n);
    if (sent !== undefined) state.delay = performance.now() - sent;
    for (const number of [...pingedAt.keys()]) if (number <= message.n) pingedAt.delete(number);
    state.asked = pingedAt.values().next().value ?? Infinity;
  } else if (message.type === "answer") settle(message.id, message);
  else if (message.type === "hello") {
    const before = state.run?.run;
    state.run = message.run;
    state.panel = message.panel || {};
    if (before !== state.run?.run) {
      // A run that was stopped may have ended before it could say so.
      if (state.status) state.last = {...state.status, latched: state.status.latched || stoppedRun === before};
      state.status = null;
      state.heard = performance.now();
    }
    if (state.run) [state.ended, state.last] = ["", null];
    stopAgain();
    emit("hello");
  } else if (message.type === "jobs") {
    state.jobs = message.jobs;
    emit("jobs");
  } else if (message.type === "gone") {
    state.ended = message.reason || "";
    emit("gone", message);
  } else if (OFTEN.includes(message.type)) soon(message);
  else emit(message.type, message);
}

/** What comes often is shown as often as this machine can: a queue of it would show the past as if it were now. */
function soon(message) {
  const before = pending[message.type];
  if (message.type === "ticks" && before) for (const name of TICKS) before[name].push(...message[name]);
  else pending[message.type] = message;
  if (timer === 0) timer = setTimeout(showNewest, Math.min(500, 2 * cost));
}

function showNewest() {
  const began = performance.now(), {status, ticks, bodies} = pending;
  [timer, pending] = [0, {}];
  if (status) {
    // The server repeats the last word of a run that hangs.
    const before = state.status;
    if (before?.ticks !== status.ticks || (!status.ticks && before?.elapsed_s !== status.elapsed_s)) state.heard = began;
    state.status = status;
    if (status.stop && status.stop.phase !== "latched") stoppedRun = "";
    emit("status", status);
  }
  if (ticks) {
    state.heard = began;
    emit("ticks", ticks);
  }
  if (bodies) emit("bodies", bodies);
  cost = performance.now() - began;
}

function takeBinary(buffer) {
  const size = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  emit(head.kind, {head, payload: new Uint8Array(buffer, 4 + size)});
}

function opened() {
  tries = 0;
  [pingedAt, pending, state.asked] = [new Map(), {}, Infinity];
  if (token) send({type: "token", token});
  state.connected = true;
  state.refused = "";
  send({type: "watch", ...watching});
  emit("connection");
}

function closed(event) {
  socket = null;
  state.connected = false;
  state.refused = event.code === 1008 || event.code === 1013 ? event.reason : "";
  for (const id of [...waiting.keys()]) settle(id, {ok: false, error: "", word: "noAnswer"});
  emit("connection");
  setTimeout(connect, AGAIN_MS[Math.min(tries++, AGAIN_MS.length - 1)]);
}

export function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const mine = socket = new WebSocket(`${scheme}://${location.host}/ws`, PROTOCOL);
  mine.binaryType = "arraybuffer";
  mine.onopen = () => mine === socket && opened();
  mine.onclose = (event) => mine === socket && closed(event);
  heard = performance.now();
  mine.onmessage = (event) => {
    if (mine !== socket) return;
    heard = performance.now();
    ping(); // timers of a page in the background are slowed down, messages are not
    if (typeof event.data === "string") take(JSON.parse(event.data));
    else takeBinary(event.data);
  };
}

setInterval(() => {
  ping();
  // A server that hangs keeps its connections: after a while another one is tried.
  if (socket !== null && performance.now() - heard > SILENT_MS) {
    const silent = socket;
    closed({code: 0, reason: ""});
    silent.close();
  }
}, PING_MS);
