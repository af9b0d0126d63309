// What the page knows, and who wants to hear of it.

/** `run`: what the run's link says; `status`: what the run said last, `heard` when (ms of this page);
 * `delay`: of the server's last answer; `asked`: when the oldest question was sent that it has not answered yet;
 * `last`: what the run before it said at its end. */
export const state = {
  connected: false,
  refused: "",
  run: null,
  panel: {},
  status: null,
  last: null,
  heard: -Infinity,
  delay: NaN,
  asked: Infinity,
  jobs: [],
  ended: "",
  view: "live",
  wanted: null,
};

const listeners = new Map();

export function on(event, listener) {
  if (!listeners.has(event)) listeners.set(event, new Set());
  listeners.get(event).add(listener);
}

/** One that fails keeps nobody else from hearing of it: a button must not lie because a plot is broken. */
export function emit(event, said) {
  for (const listener of listeners.get(event) || []) {
    try {
      listener(said);
    } catch (error) {
      console.error(`${event}: ${error.stack}`);
    }
  }
}

export const STALE_MS = 1000;

/** Milliseconds since the run was heard of: what is shown is so old, or older. */
export const age = () => performance.now() - Math.min(state.heard, state.asked);

/** Whether what is shown may no longer be true. */
export const isStale = () => !state.connected || (state.run !== null && age() > STALE_MS);
