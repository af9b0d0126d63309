// The server's HTTP: what is read, and what is asked for.

import {token} from "./link.js";
import {on} from "./state.js";

const headers = () => (token ? {"x-dexrun-token": token} : {});

async function answered(response) {
  const said = await response.json().catch(() => ({error: `${response.status} ${response.statusText}`}));
  if (!response.ok) throw new Error(said.error || String(response.status));
  return said;
}

/** The JSON at `path`; throws an `Error` of one line. */
export async function read(path) {
  return answered(await fetch(path, {headers: headers(), cache: "no-store"}));
}

/** Ask the server to do something. */
export async function post(path, body = {}) {
  return answered(await fetch(path, {
    method: "POST", headers: {...headers(), "content-type": "application/json"}, body: JSON.stringify(body),
  }));
}

/** A picture as an address for an `img`; the caller lets go of it by `URL.revokeObjectURL`. */
export async function picture(path) {
  const response = await fetch(path, {headers: headers()});
  if (!response.ok) throw new Error(String(response.status));
  return URL.createObjectURL(await response.blob());
}

let choices = null;
on("jobs", () => { choices = null; }); // a job that has ended may have left something to choose

/** What there is to choose from, and which jobs there are. */
export function choose(again = false) {
  if (choices === null || again) choices = Promise.all([read("/api/choices"), read("/api/data")])
    .then(([known, data]) => ({...known, data: data.data}))
    .catch((error) => { choices = null; throw error; });
  return choices;
}
