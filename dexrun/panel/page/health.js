// How the loop, the devices and the servos are.

import {card, fill, fixed, h, mark, microseconds, write} from "./dom.js";
import {on, state} from "./state.js";
import {say} from "./words.js";

const HOT_C = 55, TOO_HOT_C = 65;

function figures() {
  const names = ["rate", "period_p99", "work_p99", "missed", "starved", "horizon"];
  const outputs = Object.fromEntries(names.map((name) => [name, h("output", {})]));
  const tiles = names.map((name) => h("div", {class: "figure", "data-figure": name}, outputs[name], h("small", {"data-word": `figure_${name}`})));
  on("status", (status) => {
    const wanted = state.run?.rate_hz || 30;
    write(outputs.rate, `${fixed(status.rate_hz)} Hz`);
    mark(tiles[0], "data-bad", status.rate_hz > 0 && status.rate_hz < 0.9 * wanted && !state.run?.stepped);
    write(outputs.period_p99, microseconds(status.period_error_us?.p99));
    write(outputs.work_p99, microseconds(status.work_us?.p99));
    write(outputs.missed, status.missed);
    write(outputs.starved, status.starved);
    write(outputs.horizon, status.horizon);
  });
  return h("div", {class: "figures"}, ...tiles);
}

const counted = (counts) => Object.entries(counts || {}).filter(([, times]) => times).map(([name, times]) => `${name} ${times}`);

function line(word, values) {
  const shown = h("dd", {});
  on("status", (status) => write(shown, values(status).join(" · ") || say("none")));
  return [h("dt", {"data-word": word}), shown];
}

export function healthCard() {
  return card("health", figures(), h("dl", {},
    ...line("sensors", (status) => Object.entries(status.sensor_rates_hz || {}).map(([name, rate]) => `${name} ${fixed(rate, 0)} Hz`)),
    ...line("clips", (status) => counted(status.clips)),
    ...line("faults", (status) => Object.entries(status.faults || {}).flatMap(([device, kinds]) => counted(kinds).map((one) => `${device}: ${one}`))),
    ...line("policy", (status) => (status.policy ? [[status.policy.type, status.policy.name].filter(Boolean).join(" ")] : []))));
}

export function servosCard() {
  const body = h("tbody", {});
  const made = card("servos", h("table", {}, h("thead", {}, h("tr", {}, ...["joint", "temperature", "voltage", "load"].map((word) => h("th", {"data-word": word})))), body));
  made.hidden = true;
  on("status", (status) => {
    const servos = Object.entries(status.servos || {});
    made.hidden = servos.length === 0;
    fill(body, servos, () => servos.map(([name, {temperature_c: warm, voltage_v: volts, load}]) => h("tr", {},
      h("th", {}, name),
      h("td", {"data-heat": warm >= TOO_HOT_C ? "hot" : warm >= HOT_C ? "warm" : "cool"}, `${fixed(warm, 0)} °C`),
      h("td", {}, `${fixed(volts)} V`), h("td", {}, Number.isFinite(load) ? `${fixed(100 * load, 0)} %` : "–"))));
  });
  return made;
}
