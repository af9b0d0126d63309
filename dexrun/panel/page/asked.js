// What the commands of the set-up ask, in Chinese: they speak English, as in a terminal. Values stand in braces.

import {language} from "./words.js";

const ASKED = [
  ["Hold the arm: it drops when its torque goes off. Press Enter to let it go.", "请扶住机械臂：关闭扭矩后它会下落。按回车关闭扭矩。"],
  ["Torque is off. Bring every joint to about its middle, then press Enter.", "扭矩已关闭。把每个关节摆到大约中间的位置，然后按回车。"],
  ["Close {names} all the way and keep it so, then press Enter.", "把 {names} 完全合上并保持住，然后按回车。"],
  ["Connect the servo of {name} alone, with its power, then press Enter.", "只接上 {name} 的舵机并通电，然后按回车。"],
  [
    "This servo has id {id}, as {other} has. Enter makes it {name}; if it is {same}, connect that of {wanted} first.",
    "这个舵机的编号是 {id}，与 {other} 相同。按回车把它设为 {name}；如果它就是 {same}，请先换上 {wanted} 的舵机。",
  ],
  ["Connect all servos in their order, then press Enter.", "按顺序接上所有舵机，然后按回车。"],
  ["Which arm: 1 SO-101, 2 SO-100? [{usual}]", "哪种机械臂：1 SO-101，2 SO-100？[{usual}]"],
  ["How many arms that follow: 1 or 2? [{usual}]", "有几条从臂：1 还是 2？[{usual}]"],
  ["Which is the {role}: its number, m to move it and see, 0 for none? [{usual}]", "哪个是{role}：输入编号；m 表示用手移动来辨认；0 表示没有 [{usual}]"],
  ["Move the {role} by hand, then press Enter.", "用手移动{role}，然后按回车。"],
  ["Calibration file of the {role} (LeRobot's will do)? [{file}]", "{role}的校准文件（LeRobot 的也可以）？[{file}]"],
  ["Calibrate the {role} now: y or n? [{usual}]", "现在校准{role}吗：y 还是 n？[{usual}]"],
  ['What is done in the episodes, such as "put the cube in the tray"?', "每段录制做什么？例如 “put the cube in the tray”"],
  ["Its name: head for the one above the table, wrist, ...; Enter leaves it out:", "给它起名：桌面上方的叫 head，还有 wrist 等；直接回车则不用这个相机："],
  ["{file} is there already. Replace it: y or n? [n]", "{file} 已经存在。替换它吗：y 还是 n？[n]"],
  ["follower", "从臂"],
  ["leader", "主臂"],
  ["left follower", "左从臂"],
  ["left leader", "左主臂"],
  ["right follower", "右从臂"],
  ["right leader", "右主臂"],
  ["move it and see", "移动来辨认"],
  ["none", "没有"],
  ["yes", "是"],
  ["no", "否"],
];

const PLACE = /\{(\w+)\}/;
const known = ASKED.map(([english, chinese]) => {
  const parts = english.split(PLACE); // what stands between the places, and in turn their names
  const pattern = parts.map((part, index) => (index % 2 ? "(.+?)" : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))).join("");
  return {pattern: new RegExp(`^${pattern}$`, "s"), names: parts.filter((_, index) => index % 2), chinese};
});

/** `text` as the person reads it; one that is not known stays as it is. */
export function asAsked(text) {
  if (language() === "en") return text;
  for (const {pattern, names, chinese} of known) {
    const match = text.match(pattern);
    if (match) return chinese.replace(/\{(\w+)\}/g, (_, name) => asAsked(match[names.indexOf(name) + 1]));
  }
  return text;
}
