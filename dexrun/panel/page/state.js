// What the page knows, and who wants to hear of it.

/** `run`: what the run's link says; `status`: what the run said last, `heard` when (ms of this page);
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
  jobs: [],
  ended: "",
  view: "live",
};

const listeners = new Map();

export function on(event, listener) {
  if (!listeners.has(event)) listeners.set(event, new Set());
  listeners.get(event).add(listener);
}

export function emit(event, said) {
  for (const listener of listeners.get(event) || []) listener(said);
}

export const STALE_MS = 1000;

/** Milliseconds since the run was heard of. */
export const age = () => performance.now() - state.heard;

/** Whether what is shown may no longer be true. */
export const isStale = () => !state.connected || (state.run !== null && age() > STALE_MS);
