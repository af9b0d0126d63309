// Moving the gripper of a leader without an arm: touch pads, a gamepad of the browser's, a phone or a VR controller.

import {card, fill, h, mark} from "./dom.js";
import {whyNot} from "./controls.js";
import {command} from "./link.js";
import {on, state} from "./state.js";
import {tell} from "./said.js";
import {say} from "./words.js";

const EVERY_MS = 33, LINEAR = 0.15, ANGULAR = 1.0, GRIPPER = 1.0, DEAD = 0.15;

let pushed = {x: 0, y: 0, z: 0, yaw: 0, grip: 0}, gamepad = false, moving = false, session = null, arm = null;

/** Which arm is meant, where there are several. */
const which = () => (arm === null ? {} : {arm});

/** Send what is held; once it is let go, standing still, once. */
function sendJog() {
  if (whyNot("jog") || session) return;
  const pad = gamepad && !document.hidden ? ofGamepad() : null; // of a hidden page's the browser says what it was
  const sum = (name) => Math.max(-1, Math.min(1, pushed[name] + (pad?.[name] ?? 0)));
  const twist = [LINEAR * sum("x"), LINEAR * sum("y"), LINEAR * sum("z"), ANGULAR * (pad?.roll ?? 0), ANGULAR * (pad?.pitch ?? 0), ANGULAR * sum("yaw")];
  const grip = GRIPPER * sum("grip");
  const now = grip !== 0 || twist.some((value) => value !== 0);
  if (now || moving) command("jog", {twist, grip, ...which()});
  moving = now;
}

const stick = (value) => (Math.abs(value) < DEAD ? 0 : Math.sign(value) * (Math.abs(value) - DEAD) / (1 - DEAD));

/** The first pad that has the standard layout. */
function ofGamepad() {
  const pad = [...navigator.getGamepads()].find((each) => each?.connected && each.mapping === "standard");
  if (!pad) return null;
  const [lx, ly, rx, ry] = pad.axes.map(stick), down = (button) => pad.buttons[button]?.value ?? 0;
  return {x: -ly, y: -lx, z: -ry, yaw: -rx, roll: down(15) - down(14), pitch: down(13) - down(12), grip: down(7) - down(6)};
}

/** A square that a finger or the mouse is moved on: -1 to 1 along both of its sides, 0 once it is let go. */
function touchPad(id, word, set) {
  const knob = h("i", {}), node = h("div", {class: "pad", id, "data-title": word}, knob);
  const put = (x, y) => {
    set(x, y);
    knob.style.left = `${50 + 40 * x}%`;
    knob.style.top = `${50 - 40 * y}%`;
  };
  const place = (event) => {
    const box = node.getBoundingClientRect(), cut = (value) => Math.max(-1, Math.min(1, value));
    put(cut(2 * (event.clientX - box.left) / box.width - 1), cut(1 - 2 * (event.clientY - box.top) / box.height));
  };
  node.onpointerdown = (event) => { node.setPointerCapture(event.pointerId); place(event); };
  node.onpointermove = (event) => node.hasPointerCapture(event.pointerId) && place(event);
  for (const end of ["onpointerup", "onpointercancel", "onlostpointercapture"]) node[end] = () => put(0, 0);
  return h("div", {class: "padded"}, node, h("small", {"data-word": word}));
}

/** A button that counts while it is held. */
function held(id, word, value) {
  const node = h("button", {class: "do", id, "data-word": word});
  node.onpointerdown = () => { pushed.grip = value; };
  for (const end of ["onpointerup", "onpointercancel", "onpointerleave"]) node[end] = () => { pushed.grip = 0; };
  return node;
}

// WebXR counts x to the right, y up and z to the viewer; the arm x forward, y left and z up.
const toArm = ({x, y, z}) => [-z, -x, y];

/** A frame of the headset or phone: where the first controller is; its trigger is the clutch, its other button the gripper. */
function handOf(frame, space) {
  for (const source of session.inputSources) {
    const pose = frame.getPose(source.gripSpace ?? source.targetRaySpace, space);
    if (!pose) continue;
    const {position, orientation} = pose.transform, buttons = source.gamepad?.buttons ?? [];
    const clutch = source.gamepad ? (buttons[1]?.value ?? 0) > 0.5 : true; // a phone's touch is there while it is held
    const grip = source.gamepad ? 1 - (buttons[0]?.value ?? 0) : null;
    return {position: toArm(position), quaternion: [...toArm(orientation), orientation.w], grip, clutch};
  }
  return null;
}

async function enter() {
  try {
    const kind = await navigator.xr.isSessionSupported("immersive-vr") ? "immersive-vr" : "immersive-ar";
    session = await navigator.xr.requestSession(kind, {optionalFeatures: ["local-floor"]});
    const canvas = h("canvas"), gl = canvas.getContext("webgl", {xrCompatible: true});
    await session.updateRenderState({baseLayer: new XRWebGLLayer(session, gl)});
    const space = await session.requestReferenceSpace("local");
    session.onend = () => { session = null; };
    let sent = 0;
    const each = (now, frame) => {
      session?.requestAnimationFrame(each);
      if (!session || now - sent < EVERY_MS / 2 || whyNot("hand")) return;
      const hand = handOf(frame, space);
      if (hand) { sent = now; command("hand", {...hand, ...which()}); }
    };
    session.requestAnimationFrame(each);
  } catch (error) {
    session = null;
    tell(`${say("jog_xr")}: ${error.message}`, "bad");
  }
}

export function jogCard() {
  const pads = [
    touchPad("jog-plane", "jog_plane", (x, y) => { [pushed.x, pushed.y] = [y, -x]; }),
    touchPad("jog-height", "jog_height", (x, y) => { [pushed.z, pushed.yaw] = [y, -x]; }),
  ];
  const box = h("input", {type: "checkbox", id: "jog-gamepad"});
  box.onchange = () => { gamepad = box.checked; };
  const xr = h("button", {class: "do", id: "jog-xr", "data-word": "jog_xr", hidden: true, onclick: enter});
  Promise.any(["immersive-vr", "immersive-ar"].map(async (kind) => (await navigator.xr?.isSessionSupported(kind)) || Promise.reject(kind)))
    .then(() => { xr.hidden = false; }, () => {});
  const arms = h("div", {class: "row arms", role: "group"});
  const made = card("jog", arms, h("div", {class: "row pads"}, ...pads),
    h("div", {class: "row"}, held("jog-open", "jog_open", 1), held("jog-close", "jog_close", -1)),
    h("label", {class: "check"}, box, " ", h("span", {"data-word": "jog_gamepad"})), xr);
  const choose = (name) => {
    if (moving) command("jog", {twist: [0, 0, 0, 0, 0, 0], grip: 0, ...which()}); // the one before stands still at once
    moving = false;
    arm = name;
    for (const each of arms.children) mark(each, "aria-pressed", each.dataset.arm === name);
  };
  const look = () => {
    const several = state.status?.jogged?.length > 1 ? state.status.jogged : [];
    fill(arms, several, () => several.map((name) => h("button", {class: "do", "data-arm": name, onclick: () => choose(name)}, say(`arm_${name}`, {}, name))));
    if (!several.includes(arm)) choose(several[0] ?? null);
    made.hidden = !state.status?.can?.includes("jog");
    mark(made, "data-on", !made.hidden);
  };
  for (const event of ["status", "hello", "connection"]) on(event, look);
  look();
  setInterval(sendJog, EVERY_MS);
  return made;
}
