// The arm in three dimensions, with the points that a depth camera sees. Drawn when something has changed.

import {card, h, mark, write} from "./dom.js";
import {read} from "./api.js";
import {emit, on, state} from "./state.js";
import {say} from "./words.js";

let three = null, scene = null, bodies = [], cloud = null, drawing = false, dirty = false, holder = null, pause = 0;
export const wantsBodies = () => three !== null && bodies.length > 0 && holder.offsetParent !== null;
let cloudWanted = false;
export const wantsCloud = () => cloudWanted && three !== null;

async function build() {
  const [library, {OrbitControls}] = await Promise.all([import("./vendor/three.module.min.js"), import("./vendor/OrbitControls.js")]);
  const renderer = new library.WebGLRenderer({antialias: true, alpha: true, powerPreference: "low-power"});
  const slow = drawnByProcessor(renderer.getContext());
  renderer.setPixelRatio(slow ? 1 : Math.min(devicePixelRatio, 2));
  const camera = new library.PerspectiveCamera(42, 1, 0.01, 10);
  camera.up.set(0, 0, 1);
  camera.position.set(0.62, -0.5, 0.45);
  const controls = new OrbitControls(camera, renderer.domElement);
  controls.target.set(0.12, 0, 0.08);
  controls.addEventListener("change", redraw);
  controls.update();
  scene = new library.Scene();
  scene.add(new library.HemisphereLight(0xffffff, 0x556070, 2.2));
  const sun = new library.DirectionalLight(0xffffff, 1.6);
  sun.position.set(0.5, -0.7, 1.5);
  scene.add(sun);
  const floor = new library.GridHelper(1, 20, 0x6b7684, 0x3a434e);
  floor.rotation.x = Math.PI / 2;
  floor.material.transparent = true;
  floor.material.opacity = 0.45;
  scene.add(floor, new library.AxesHelper(0.08));
  const size = () => {
    const {clientWidth: width, clientHeight: height} = holder;
    if (!width || !height) return;
    renderer.setSize(width, height);
    camera.aspect = width / height;
    camera.updateProjectionMatrix();
    redraw();
  };
  holder.append(renderer.domElement);
  new ResizeObserver(size).observe(holder);
  three = {library, renderer, camera, controls, slow};
  size();
}

/** Soon; a machine that draws slowly spends a quarter of its time on it at most. */
function redraw() {
  dirty = true;
  if (drawing || three === null) return;
  drawing = true;
  setTimeout(() => requestAnimationFrame(() => {
    const began = performance.now();
    dirty = false;
    three.renderer.render(scene, three.camera);
    requestAnimationFrame(() => {
      pause = Math.max(three.slow ? 300 : 0, Math.min(1500, 3 * (performance.now() - began - 20)));
      drawing = false;
      if (dirty) redraw();
    });
  }), pause);
}

/** Whether pictures are drawn by the processor, which has other things to do. */
function drawnByProcessor(gl) {
  const about = gl.getExtension("WEBGL_debug_renderer_info");
  return /swiftshader|llvmpipe|software/i.test(about ? gl.getParameter(about.UNMASKED_RENDERER_WEBGL) : "");
}

const unpacked = (text, Type) => new Type(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

function geometryOf(geom) {
  const {BufferGeometry, BufferAttribute, SphereGeometry, CapsuleGeometry, CylinderGeometry, BoxGeometry} = three.library;
  const [a, b, c] = geom.size || [];
  if (geom.shape === "mesh") {
    const made = new BufferGeometry();
    made.setAttribute("position", new BufferAttribute(unpacked(geom.vertices, Float32Array), 3));
    made.setIndex(new BufferAttribute(unpacked(geom.faces, Uint32Array), 1));
    const flat = made.toNonIndexed(); // edges of a printed part stay edges
    flat.computeVertexNormals();
    return flat;
  }
  if (geom.shape === "box") return new BoxGeometry(2 * a, 2 * b, 2 * c);
  if (geom.shape === "sphere") return new SphereGeometry(a, 24, 16);
  if (geom.shape === "ellipsoid") return new SphereGeometry(1, 24, 16).scale(a, b, c);
  const round = geom.shape === "capsule" ? new CapsuleGeometry(a, 2 * b, 6, 20) : new CylinderGeometry(a, a, 2 * b, 24);
  return round.rotateX(Math.PI / 2); // MuJoCo's stand along z
}

async function loadModel() {
  const {Group, Mesh, MeshStandardMaterial, Color} = three.library;
  for (const body of bodies) scene.remove(body);
  bodies = [];
  const {bodies: described} = await read("/api/model");
  bodies = described.map((body) => {
    const group = new Group();
    for (const geom of body.geoms) {
      const [r, g, b, opacity] = geom.rgba;
      const color = new Color().setRGB(r, g, b, "srgb");
      const mesh = new Mesh(geometryOf(geom), new MeshStandardMaterial({color, transparent: opacity < 1, opacity, roughness: 0.75}));
      const [w, x, y, z] = geom.quaternion;
      mesh.position.set(...geom.position);
      mesh.quaternion.set(x, y, z, w);
      group.add(mesh);
    }
    group.visible = false; // until it is known where it is
    scene.add(group);
    return group;
  });
}

function place({poses}) {
  poses.forEach(([x, y, z, qw, qx, qy, qz], index) => {
    const body = bodies[index];
    if (!body) return;
    body.position.set(x, y, z);
    body.quaternion.set(qx, qy, qz, qw);
    body.visible = true;
  });
  redraw();
}

function showCloud({head, payload}) {
  if (three === null) return;
  const {BufferGeometry, BufferAttribute, Points, PointsMaterial} = three.library;
  const bytes = payload.slice(); // floats begin at a multiple of four
  if (cloud) {
    scene.remove(cloud);
    cloud.geometry.dispose();
  }
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(bytes.buffer, 0, 3 * head.points), 3));
  geometry.setAttribute("color", new BufferAttribute(new Uint8Array(bytes.buffer, 12 * head.points, 3 * head.points), 3, true));
  cloud = new Points(geometry, new PointsMaterial({size: 0.004, vertexColors: true}));
  cloud.visible = cloudWanted;
  scene.add(cloud);
  mark(holder, "data-points", head.points);
  redraw();
}

export function armCard() {
  const note = h("p", {class: "note"});
  holder = h("div", {id: "arm"}, note);
  const box = h("input", {type: "checkbox", id: "cloud"});
  box.onchange = () => {
    cloudWanted = box.checked;
    if (cloud) cloud.visible = cloudWanted;
    redraw();
    emit("watch");
  };
  const made = card("arm", holder, h("label", {class: "row check"}, box, h("span", {"data-word": "cloud"})));
  let trying = false, of = "";
  const begin = async () => {
    if (!state.run || trying || of === state.run.run || state.view !== "live") return;
    trying = true;
    try {
      if (three === null) await build();
      await loadModel();
      of = state.run?.run;
      write(note, "");
      emit("watch");
    } catch (error) {
      write(note, three === null ? say("no_webgl") : say("no_model", {why: error.message}));
      if (three !== null) setTimeout(begin, 2000); // the server may still be making it
    }
    trying = false;
  };
  on("hello", begin);
  on("view", begin);
  on("bodies", place);
  on("cloud", showCloud);
  on("hello", () => {
    const deep = Object.values(state.run?.cameras || {}).some((camera) => camera.depth && camera.pose && camera.intrinsics);
    box.disabled = !deep;
    mark(box.parentElement, "title", deep ? null : say("why_no_cloud"));
  });
  return made;
}
