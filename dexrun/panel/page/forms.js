// A form for a kind of job, out of what the server says that it takes.

import {h, mark, write} from "./dom.js";
import {choose} from "./api.js";
import {say, translate} from "./words.js";

const LISTED = {
  config: (known) => known.configs,
  "training config": (known) => known.configs, // none at first: the arm's is no training's
  "policy type": (known) => known.policies,
  checkpoint: (known) => known.checkpoints,
  policy: (known) => [...known.policies, ...known.checkpoints],
  data: (known) => known.data.map((each) => each.path),
  calibration: (known) => known.calibrations,
};
const NONE = ["compare", "dagger", "resume"]; // what is left out there is not as configured: it is not done

const nothing = ({name, kind}) => h("option", {value: "", "data-word": NONE.includes(name) || kind === "training config" ? "none" : "usual"});
const option = (value, text = value) => h("option", {value}, text);

function fieldFor(argument, known) {
  const {name, kind, many} = argument;
  const id = `field-${Math.random().toString(36).slice(2)}`;
  const label = h("label", {for: id, "data-word": `arg_${name}`});
  let field;
  if (kind === "flag") field = h("input", {type: "checkbox", id});
  else if (kind.includes("|")) field = h("select", {id}, nothing(argument), ...kind.split("|").map((each) => option(each, say(`value_${each}`, {}, each))));
  else if (kind in LISTED && (kind !== "policy" || LISTED.policy(known).length)) {
    const values = LISTED[kind](known) || [];
    field = h("select", {id, multiple: many, size: many ? Math.min(6, Math.max(2, values.length)) : undefined},
      ...(many ? [] : [nothing(argument)]), ...values.map((each) => option(each)));
  } else if (kind === "whole" || kind === "number") field = h("input", {id, type: "number", step: kind === "whole" ? "1" : "any", min: "0"});
  else field = h("input", {id, autocomplete: "off", "data-placeholder": `like_${kind.replace(" ", "_")}`});
  const offered = kind === "port" && known.ports.length ? h("datalist", {id: `${id}-offered`}, ...known.ports.map((each) => option(each))) : null;
  if (offered) field.setAttribute("list", offered.id);
  field.dataset.argument = name;
  if (argument.needed) label.classList.add("needed");
  return {argument, field, node: h("div", {class: `field ${kind === "flag" ? "flag" : ""}`}, label, field, offered)};
}

function valueOf({argument, field}) {
  if (argument.kind === "flag") return field.checked || undefined;
  if (argument.many) {
    const chosen = [...field.selectedOptions].map((each) => each.value);
    return chosen.length ? chosen : undefined;
  }
  if (field.value === "") return undefined;
  return argument.kind === "whole" || argument.kind === "number" ? Number(field.value) : field.value;
}

/** A form; `names`: its arguments in order (all without), `usual`: what stands in them at first, `fixed`: what is asked for besides. */
export function form(kindName, {names = null, usual = {}, fixed = {}, submit, word, more = []}) {
  const fields = h("div", {class: "fields"}), hidden = h("div", {class: "fields"});
  const go = h("button", {class: "do go", "data-word": word, type: "submit"});
  const others = h("details", {}, h("summary", {"data-word": "more_options"}), hidden);
  const trouble = h("p", {class: "trouble", role: "alert"});
  const node = h("form", {class: "job-form", "data-kind": kindName}, fields, others, trouble, h("div", {class: "row"}, go, ...more));
  let made = [];

  async function load(again = false) {
    try {
      const known = await choose(again);
      const kind = known.kinds.find((each) => each.kind === kindName);
      const kept = Object.fromEntries(made.map((each) => [each.argument.name, each.field.value]));
      made = kind.arguments.map((argument) => fieldFor(argument, known));
      const inFront = names || kind.arguments.map((each) => each.name);
      fields.replaceChildren(...inFront.map((name) => made.find((each) => each.argument.name === name)?.node).filter(Boolean));
      hidden.replaceChildren(...made.filter((each) => !inFront.includes(each.argument.name)).map((each) => each.node));
      others.hidden = hidden.children.length === 0 || Object.keys(fixed).length > 0;
      for (const each of made) {
        const {name, kind: like, needed} = each.argument;
        const only = like === "config" ? known.configs[0] : like === "port" && known.ports.length === 1 && known.ports[0].startsWith("/dev/serial/") ? known.ports[0] : undefined;
        const value = kept[name] || usual[name] || only;
        if (needed && each.field.options?.[0]?.value === "") mark(each.field.options[0], "data-word", "choose");
        if (value !== undefined && each.argument.kind !== "flag") each.field.value = value;
      }
      write(trouble, "");
      translate(node);
    } catch (error) {
      write(trouble, say("not_known", {why: error.message}));
    }
  }

  node.onsubmit = async (event) => {
    event.preventDefault();
    write(trouble, "");
    const lacking = made.find((each) => each.argument.needed && valueOf(each) === undefined);
    if (lacking) {
      write(trouble, say("needs", {what: say(`arg_${lacking.argument.name}`)}));
      lacking.field.focus();
      return;
    }
    const args = {...fixed};
    for (const each of made) {
      const value = valueOf(each);
      if (value !== undefined) args[each.argument.name] = value;
    }
    go.disabled = true;
    try {
      await submit(args);
    } catch (error) {
      write(trouble, error.message);
    }
    go.disabled = false;
  };
  load();
  /** What a person was sent here with. */
  function fillIn(values = {}) {
    for (const each of made) if (values[each.argument.name]) each.field.value = values[each.argument.name];
  }
  return {node, load, fill: fillIn};
}
