// One answer: who wrote it, how it goes, the text as it comes, the numbers; and what the chat and the comparison have in
// common around it: the prompt field, settings, a turn that can be asked anew, a field for a key. Text of models and
// servers is only ever set as text.

const STATES = { waiting: "waiting", writing: "writing", done: "", cancelled: "cancelled", failed: "failed" };

// Whole pictures, and what was added since: the same as `joined` in answers.py.
function joined(whole, added) {
  const fits = added.length === whole.length && added.every((item, at) => item.version === whole[at].version);
  if (!fits) return whole;
  return added.map((item, at) => ({
    ...item, text: whole[at].text + item.text, reasoning: whole[at].reasoning + item.reasoning,
  }));
}

// Sets the text of a node; where it only grew, what was added is appended, so that a reader's selection stays.
function growingText(node) {
  let drawn = "";
  return (next) => {
    if (next === drawn) return;
    if (drawn && next.startsWith(drawn)) node.append(next.slice(drawn.length));
    else node.textContent = next;
    drawn = next;
  };
}

// Draws only what differs from what it drew last.
function whenChanged(draw) {
  let drawn = "";
  return (value) => {
    const next = JSON.stringify(value ?? null);
    if (next === drawn) return;
    drawn = next;
    draw(value);
  };
}

function copyButton(words, label = "Copy") {
  const button = el("button", { class: "ipt-link", type: "button", text: label, onclick: async () => {
    try {
      await navigator.clipboard.writeText(words());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied: select the text";
    }
    setTimeout(() => { button.textContent = label; }, 1500);
  } });
  return button;
}

function answerView() {
  const name = el("strong");
  const model = el("span", { class: "ipt-title" });
  const badge = el("span", { class: "ipt-badge", role: "status" });
  const thought = el("pre", { dir: "auto" });
  const thinking = el("details", { class: "ipt-thinking", hidden: true }, el("summary", { text: "Reasoning" }), thought);
  const text = el("div", { class: "ipt-text", dir: "auto" });
  const tools = el("div", { class: "ipt-tools", hidden: true });
  const tokens = el("table", { class: "ipt-files" });
  const likely = el("details", { class: "ipt-thinking", hidden: true },
    el("summary", { text: "Probabilities of the first tokens" }), tokens);
  const groups = el("ol");
  const stable = el("details", { class: "ipt-thinking", hidden: true }, el("summary"), groups);
  const facts = el("div", { class: "ipt-facts" });
  const note = el("p", { class: "ipt-note", hidden: true });
  const problem = problemBox();
  const copy = copyButton(() => text.textContent);
  const node = el("article", { class: "ipt-answer" },
    el("div", { class: "ipt-by" }, name, model, badge, el("span", { class: "ipt-space" }), copy),
    thinking, text, tools, problem.box, note, stable, likely, facts);
  const showText = growingText(text);
  const showThought = growingText(thought);
  const showTools = whenChanged((calls) => {
    tools.replaceChildren(...(calls ?? []).map(([called, given]) =>
      el("pre", {}, el("strong", { text: called }), ` ${given}`)));
    tools.hidden = !calls?.length;
  });
  const showTokens = whenChanged((rows) => {
    tokens.replaceChildren(...(rows ?? []).map((row) => el("tr", {}, ...row.map((cell) => el("td", { text: cell })))));
    likely.hidden = !rows?.length;
  });
  const showGroups = whenChanged(([words, found]) => {
    stable.firstChild.textContent = words;
    groups.replaceChildren(...(found ?? []).map(([count, answer]) =>
      el("li", {}, el("span", { class: "ipt-label", text: count === 1 ? "once" : `${count} times` }),
        el("pre", { dir: "auto", text: answer }))));
    stable.hidden = !words;
  });
  const showFacts = whenChanged((pairs) => {
    facts.hidden = !pairs?.length;
    facts.replaceChildren(...(pairs ?? []).map(([label, value]) =>
      el("div", {}, el("span", { class: "ipt-label", text: label }), el("span", { class: "ipt-value", text: value }))));
  });
  return {
    node,
    show(answer) {
      const open = answer.state === "waiting" || answer.state === "writing";
      name.textContent = answer.endpoint;
      model.textContent = answer.model === answer.endpoint ? "" : answer.model;
      badge.textContent = STATES[answer.state] ?? "";
      badge.dataset.phase = answer.state ?? "";
      badge.hidden = !badge.textContent;
      thinking.hidden = !answer.reasoning;
      showThought(answer.reasoning ?? "");
      showText(answer.text ?? "");
      text.classList.toggle("ipt-writing", open);
      text.hidden = answer.state === "failed" && !answer.text;
      node.setAttribute("aria-busy", String(open));
      node.setAttribute("aria-label", `Answer of ${answer.endpoint}`);
      copy.hidden = !answer.text || !navigator.clipboard;
      note.textContent = answer.note ?? "";
      note.hidden = !answer.note;
      showTools(answer.tools);
      showTokens(answer.logprobs);
      showGroups([answer.stability ?? "", answer.groups]);
      showFacts(answer.facts);
      problem.show(answer.problem);
    },
  };
}

// A prompt field with its two buttons. Enter sends, Shift+Enter makes a new line, Escape cancels.
function composer(model, { label, send }) {
  const field = el("textarea", { class: "ipt-prompt", rows: 2, dir: "auto", placeholder: label, "aria-label": label });
  const go = el("button", { class: "ipt-button ipt-primary", type: "button", text: "Send", onclick: () => submit() });
  const cancel = el("button", { class: "ipt-button", type: "button", text: "Cancel",
    onclick: () => model.send({ do: "cancel" }) });
  function submit() {
    if (!model.get("busy") && field.value.trim()) send(field);
  }
  field.addEventListener("keydown", (event) => {
    ownKeys(event);
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
    if (event.key === "Escape" && model.get("busy")) model.send({ do: "cancel" });
  });
  const node = el("div", { class: "ipt-composer" }, field, el("div", { class: "ipt-sendbox" }, go, cancel));
  return {
    node, field,
    draw() {
      go.disabled = model.get("busy");
      cancel.disabled = !model.get("busy");
    },
  };
}

// What was asked, with buttons to ask it again and to ask it with other words. The field for these is made when it is
// wanted; it stays, with what is typed, while answers come.
function turnView(model, className) {
  const said = el("div", { class: className, dir: "auto" });
  const edit = el("button", { class: "ipt-link", type: "button", text: "Edit", title: "Ask with other words; what "
    + "followed is replaced", onclick: () => open() });
  const again = el("button", { class: "ipt-link", type: "button", text: "Ask again", title: "Ask the same once more; "
    + "what followed is replaced", onclick: () => model.send({ do: "edit", number }) });
  const tools = el("div", { class: "ipt-turntools" }, edit, again);
  const form = el("div", { class: "ipt-edit", hidden: true });
  const node = el("div", {}, said, tools, form);
  let number = 0;
  function close() {
    form.replaceChildren();
    form.hidden = true;
    said.hidden = tools.hidden = false;
    edit.focus();
  }
  function open() {
    const field = el("textarea", { class: "ipt-prompt", rows: 2, dir: "auto", "aria-label": "The turn in other words" });
    field.value = said.textContent;
    const submit = () => {
      if (!field.value.trim() || model.get("busy")) return;
      model.send({ do: "edit", number, prompt: field.value });
      close();
    };
    field.addEventListener("keydown", (event) => {
      ownKeys(event);
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        submit();
      }
      if (event.key === "Escape") close();
    });
    form.replaceChildren(field, el("div", { class: "ipt-row" },
      el("button", { class: "ipt-button ipt-primary", type: "button", text: "Ask from here", onclick: submit }),
      el("button", { class: "ipt-button", type: "button", text: "Leave it", onclick: close })));
    form.hidden = false;
    said.hidden = tools.hidden = true;
    field.focus();
  }
  return {
    node,
    show(turn, busy) {
      number = turn.number ?? 0;
      if (said.textContent !== turn.prompt) said.textContent = turn.prompt ?? "";
      edit.disabled = again.disabled = busy || !number;
      if (form.hidden) tools.hidden = !number;
    },
  };
}

// The settings of the requests: built when they are opened first, so that a panel has no fields nobody asked for.
function settingsView(model, extra = () => []) {
  const controls = [];
  const box = el("details", { ontoggle: () => { if (box.open && !controls.length) build(); } },
    el("summary", { text: "Settings" }));
  const wrong = el("span", { class: "ipt-error", hidden: true });
  box.firstChild.append(wrong);

  function control(field, read) {
    const id = `ipt-${field.name}-${Math.random().toString(36).slice(2)}`;
    const input = field.kind === "lines"
      ? el("textarea", { id, class: "ipt-input", rows: 2 })
      : el("input", { id, class: "ipt-input", type: "text", autocomplete: "off", inputmode: "decimal" });
    const error = el("p", { class: "ipt-error", id: `${id}-error`, role: "alert", hidden: true });
    input.spellcheck = false;
    input.setAttribute("aria-describedby", `${id}-help ${id}-error`);
    input.addEventListener("keydown", ownKeys);
    input.addEventListener("change", () => model.send({ do: "set", name: field.name, value: input.value }));
    const node = el("div", { class: "ipt-field" }, el("label", { class: "ipt-name", for: id, text: field.label }), input,
      error, el("p", { class: "ipt-note", id: `${id}-help`, text: field.help }));
    controls.push(() => {
      const now = read();
      if (document.activeElement !== input && input.value !== now.value) input.value = now.value;
      if (now.placeholder) input.placeholder = now.placeholder;
      error.textContent = now.error ?? "";
      error.hidden = !now.error;
      input.setAttribute("aria-invalid", String(Boolean(now.error)));
    });
    return node;
  }

  function build() {
    const system = { name: "system", kind: "lines", label: "System prompt", help: "Sent before every conversation." };
    box.append(el("div", { class: "ipt-form" },
      control(system, () => ({ value: model.get("system") })),
      ...model.get("parameters").map((field, at) => control(field, () => model.get("parameters")[at])),
      ...extra(control)));
    draw();
  }

  function draw() {
    for (const show of controls) show();
    const errors = [...model.get("parameters"), model.get("repeat") ?? {}].filter((field) => field.error).length;
    wrong.textContent = errors ? ` · ${errors} to mend` : "";
    wrong.hidden = !errors;
  }
  return { node: box, draw };
}

function secretInput(label) {
  return el("input", { class: "ipt-input", type: "password", autocomplete: "off", spellcheck: "false",
    placeholder: label, "aria-label": label, onkeydown: ownKeys });
}

// A field for a key: it goes out in one message, and the field is emptied before anything can keep it.
function keyField(model, chooser = null) {
  const value = secretInput("Key for this endpoint");
  const use = el("button", { class: "ipt-button", type: "button", text: "Use key", onclick: () => {
    model.send({ do: "key", value: value.value, endpoint: chooser?.value ?? "" });
    value.value = "";
    box.open = false;
  } });
  const box = el("details", {}, el("summary", { text: "Type a key" }),
    el("p", { class: "ipt-note", text: "Kept in this session's memory only; not saved with the notebook. Better: put it "
      + "into a variable or a file, and name that in the endpoint." }),
    el("div", { class: "ipt-fields" }, ...(chooser ? [chooser] : []), value, use));
  return box;
}
