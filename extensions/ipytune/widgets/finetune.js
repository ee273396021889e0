// The fine-tuning panel: five steps as tabs. Fields and what they may hold come from Python; this draws them and sends
// back what was typed. Training and the comparison are panels of their own, shown inside.

// A labelled control for one setting. It keeps what is being typed while it has the focus.
function fieldView(model, prefix, first) {
  const id = `${prefix}-${first.name.replace(".", "-")}`;
  const send = (value) => model.send({ do: "set", name: first.name, value });
  let control;
  if (first.kind === "switch") {
    control = el("input", { id, type: "checkbox", onchange: () => send(control.checked) });
  } else if (first.kind === "choice") {
    control = el("select", { id, class: "ipt-select", onchange: () => send(control.value) },
      ...first.choices.map((choice) => el("option", { value: choice, text: choice })));
  } else if (first.kind === "choices") {
    control = el("div", { id, class: "ipt-checks", role: "group" }, ...first.choices.map((choice) =>
      el("label", { class: "ipt-check" }, el("input", { type: "checkbox", value: choice, onchange: () =>
        send([...control.querySelectorAll("input:checked")].map((box) => box.value)) }), choice)));
  } else if (first.kind === "lines") {
    control = el("textarea", { id, class: "ipt-input", rows: 2, onchange: () => send(control.value) });
  } else {
    control = el("input", { id, class: "ipt-input", type: "text", autocomplete: "off", spellcheck: "false",
      inputmode: first.kind === "number" ? "decimal" : null, list: first.kind === "text" ? `${id}-list` : null,
      onchange: () => send(control.value) });
  }
  control.addEventListener("keydown", ownKeys);
  const error = el("p", { class: "ipt-error", id: `${id}-error`, role: "alert", hidden: true });
  const offered = el("datalist", { id: `${id}-list` });
  const label = first.kind === "switch"
    ? el("label", { class: "ipt-check", for: id }, control, first.label)
    : el("label", { class: "ipt-name", for: id, text: first.label });
  const help = el("p", { class: "ipt-note", id: `${id}-help`, text: first.help });
  control.setAttribute("aria-describedby", `${id}-help ${id}-error`);
  if (first.kind === "choices") control.setAttribute("aria-label", first.label);
  const node = el("div", { class: "ipt-field" }, label, ...(first.kind === "switch" ? [] : [control]), offered, error, help);
  return {
    node,
    show(field, locked, choices) {
      const typing = control.contains(document.activeElement) && document.activeElement.tagName !== "SELECT";
      if (field.kind === "switch") control.checked = field.value;
      else if (field.kind === "choices") {
        for (const box of control.querySelectorAll("input")) box.checked = field.value.includes(box.value);
      } else if (!typing && control.value !== field.value) control.value = field.value;
      if (field.placeholder && "placeholder" in control) control.placeholder = field.placeholder;
      for (const part of control.matches("div") ? control.querySelectorAll("input") : [control]) part.disabled = locked;
      error.textContent = field.error;
      error.hidden = !field.error;
      control.setAttribute("aria-invalid", String(Boolean(field.error)));
      offered.replaceChildren(...(choices ?? []).map((choice) => el("option", { value: choice })));
    },
  };
}

function fieldsView(model, prefix) {
  const node = el("div", { class: "ipt-form" });
  const views = {};
  return {
    node,
    show(fields, locked, offered) {
      for (const field of fields) {
        if (!views[field.name]) {
          views[field.name] = fieldView(model, prefix, field);
          node.append(views[field.name].node);
        }
        views[field.name].show(field, locked, offered[field.name]);
      }
    },
  };
}

function factsView() {
  const node = el("div", { class: "ipt-facts" });
  return {
    node,
    show(facts) {
      node.hidden = !facts?.length;
      node.replaceChildren(...(facts ?? []).map(([label, value]) =>
        el("div", {}, el("span", { class: "ipt-label", text: label }), el("span", { class: "ipt-value", text: value }))));
    },
  };
}

// Our columns, each with the file's to choose from.
function columnsView(model, prefix) {
  const says = el("p", { class: "ipt-note" });
  const use = el("button", { class: "ipt-button", type: "button", text: "Use these", onclick: () =>
    model.send({ do: "suggested" }) });
  const suggestion = el("p", { class: "ipt-suggestion" }, el("span"), " ", use);
  const rows = el("div", { class: "ipt-form" });
  const node = el("div", { class: "ipt-columns-of" }, says, suggestion, rows);
  let drawn = "";
  return {
    node,
    show(columns, locked) {
      const next = JSON.stringify([columns, locked]);
      if (next === drawn) return;
      drawn = next;
      node.hidden = !columns.says;
      says.textContent = columns.says ?? "";
      suggestion.hidden = !columns.suggestion || locked;
      suggestion.firstChild.textContent = columns.suggestion ? `It looks as if ${columns.suggestion}.` : "";
      rows.replaceChildren(...(columns.rows ?? []).map((row) => {
        const id = `${prefix}-column-${row.name}`;
        const select = el("select", { id, class: "ipt-select", disabled: locked, onchange: () =>
          model.send({ do: "map", name: row.name, value: select.value }) },
          el("option", { value: "", text: "(none)" }), ...row.choices.map((name) => el("option", { value: name, text: name })));
        select.value = row.value;
        return el("div", { class: "ipt-field" }, el("label", { class: "ipt-name", for: id, text: `Column for ${row.name}` }), select);
      }));
    },
  };
}

function foundView() {
  const stale = el("p", { class: "ipt-note", text: "Settings have changed since; check again." });
  const facts = factsView();
  const list = el("ul", { class: "ipt-findings" });
  const batch = el("details", { class: "ipt-batch", open: true },
    el("summary", { text: "The first batch, as it is learned: only what is marked counts" }), el("div", { tabindex: 0 }));
  const node = el("div", { role: "region", "aria-label": "What was found" }, stale, facts.node, list, batch);
  let drawn = "";
  return {
    node,
    show(found) {
      const next = JSON.stringify(found);
      if (next === drawn) return;
      drawn = next;
      node.hidden = !("passed" in found);
      if (node.hidden) return;
      stale.hidden = found.current;
      facts.show(found.counts);
      list.replaceChildren(...found.findings.map((item) => el("li", { class: item.warning ? "ipt-warning" : "ipt-fault" },
        el("strong", { text: `${item.warning ? "warning" : "error"} · ${item.place}` }), ` ${item.what}. `,
        el("span", { class: "ipt-remedy", text: `${item.remedy}.` }))));
      if (found.more) list.append(el("li", { text: `… and ${found.more} more` }));
      if (!found.findings.length) list.append(el("li", { class: "ipt-fine", text: "Nothing is wrong with the data." }));
      batch.hidden = !found.preview.length;
      batch.lastChild.replaceChildren(...found.preview.flatMap((row) => [el("h4", { text: row.title }),
        ...row.conversations.map((one) => el("section", {}, el("h5", { text: one.title }), el("pre", {},
          ...one.segments.map(([text, learned]) => el(learned ? "mark" : "span", { text })))))]));
    },
  };
}

function memoryView() {
  const stale = el("p", { class: "ipt-note", text: "Settings have changed since; open this step again." });
  const bar = el("div", { class: "ipt-stack", role: "img" });
  const legend = el("div", { class: "ipt-legend" });
  const words = el("div");
  const measured = el("p", { class: "ipt-note" });
  const node = el("div", {}, stale, bar, legend, words, measured);
  return {
    node,
    show(memory) {
      node.hidden = !memory.verdict;
      if (node.hidden) return;
      stale.hidden = memory.current;
      const percent = (share) => `${(100 * share).toFixed(2)}%`;
      bar.setAttribute("aria-label", `Memory: ${memory.needed} needed, ${memory.free} free: ${memory.verdict}`);
      bar.replaceChildren(
        ...memory.parts.map((part) => {
          const piece = el("span", { title: `${part.label} ${part.size}` });
          piece.style.width = percent(part.share);
          piece.style.background = part.colour;
          return piece;
        }));
      const free = el("i", { title: `free: ${memory.free}` });
      free.style.left = percent(Math.min(memory.free_share, 0.997));
      bar.append(free);
      if (memory.probe) {
        const probe = el("b", { title: `measured: ${memory.probe}` });
        probe.style.width = percent(memory.probe_share);
        bar.append(probe);
      }
      legend.replaceChildren(...memory.parts.map((part) => {
        const square = el("span", { class: "ipt-square" });
        square.style.background = part.colour;
        return el("span", {}, square, `${part.label} ${part.size}`);
      }), el("span", { text: `free ${memory.free}` }));
      words.replaceChildren(...memory.words.map((line, index) =>
        el("p", { class: index ? "ipt-note" : "ipt-verdict", "data-verdict": index ? null : memory.verdict, text: line })));
      measured.textContent = memory.probe ? `One real step: ${memory.probe}` : "";
      measured.hidden = !memory.probe;
    },
  };
}

// A panel inside this one: drawn again when another takes its place.
function childView(model, name) {
  const node = el("div", { class: "ipt-inner" });
  let shown = null, view = null;
  async function draw() {
    const reference = model.get(name);
    if (reference === shown) return;
    shown = reference;
    view?.remove?.();
    view = null;
    node.replaceChildren();
    if (!reference) return;
    const child = typeof reference === "string"
      ? await model.widget_manager.get_model(reference.slice("IPY_MODEL_".length)) : reference;
    const made = await model.widget_manager.create_view(child);
    if (shown !== reference) return;
    view = made;
    node.replaceChildren(made.el);
  }
  return { node, draw };
}

const MARKS = { done: "✓", problem: "!", busy: "…" };

// The tabs, as the ARIA practices have them: arrows, Home and End go from one to the other, one of them takes the focus.
function tabsView(model, prefix, pages) {
  const list = el("div", { class: "ipt-tabs", role: "tablist", "aria-label": "Steps" });
  const tabs = {};
  const keys = Object.keys(pages);
  const go = (key) => {
    model.set("at", key);
    model.save_changes();
    model.send({ do: "goto", step: key });
  };
  keys.forEach((key, index) => {
    const mark = el("span", { class: "ipt-mark", text: String(index + 1), "aria-hidden": "true" });
    const name = el("span");
    const state = el("span", { class: "ipt-hidden" });
    tabs[key] = { mark, name, state, node: el("button", { class: "ipt-tab", type: "button", role: "tab", id: `${prefix}-tab-${key}`,
      "aria-controls": `${prefix}-page-${key}`, onclick: () => go(key), onkeydown: (event) => {
        const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: keys.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        event.stopPropagation(); // the notebook would move to another cell
        const next = keys[(to + keys.length) % keys.length];
        tabs[next].node.focus();
        go(next);
      } }, mark, name, state) };
    list.append(tabs[key].node);
    Object.entries({ id: `${prefix}-page-${key}`, role: "tabpanel", "aria-labelledby": `${prefix}-tab-${key}` })
      .forEach(([attribute, value]) => pages[key].setAttribute(attribute, value));
  });
  return {
    node: list,
    draw() {
      const at = model.get("at");
      model.get("steps").forEach((step, index) => {
        const tab = tabs[step.key];
        tab.name.textContent = step.title;
        tab.mark.textContent = MARKS[step.state] ?? String(index + 1);
        tab.node.dataset.state = step.state;
        tab.state.textContent = { done: ", done", problem: ", something is wrong", busy: ", going on" }[step.state] ?? "";
        tab.node.setAttribute("aria-selected", String(step.key === at));
        tab.node.tabIndex = step.key === at ? 0 : -1;
        pages[step.key].hidden = step.key !== at;
      });
    },
  };
}

function render({ model, el: host }) {
  const prefix = `ipt-${Math.random().toString(36).slice(2, 9)}`; // two panels of a page have ids of their own
  const button = (text, what, primary, title) => el("button", { class: `ipt-button${primary ? " ipt-primary" : ""}`, type: "button",
    text, title, onclick: () => model.send({ do: what }) });
  const to = (text, key) => el("button", { class: "ipt-button", type: "button", text, onclick: () => {
    model.set("at", key);
    model.save_changes();
    model.send({ do: "goto", step: key });
    root.querySelector(`#${prefix}-tab-${key}`).focus();
  } });
  const row = (...parts) => el("div", { class: "ipt-row" }, ...parts);

  const dataForm = fieldsView(model, `${prefix}-data`), columns = columnsView(model, prefix), found = foundView();
  const check = button("Check the data", "check", true);
  const data = el("div", {}, dataForm.node, columns.node, row(check, el("span", { class: "ipt-space" }), to("Settings →", "settings")),
    found.node);

  const settingsForm = fieldsView(model, `${prefix}-settings`), moreForm = fieldsView(model, `${prefix}-more`);
  const more = el("details", { class: "ipt-all" }, el("summary", { text: "All other settings" }), moreForm.node);
  const settings = el("div", {}, settingsForm.node, more, row(el("span", { class: "ipt-space" }), to("Memory →", "memory")));

  const bar = memoryView();
  const probe = button("Measure one step", "probe", false, "Runs one real step in a process of its own");
  const apply = button("Make this change", "apply", true);
  const memory = el("div", {}, bar.node, row(apply, probe, el("span", { class: "ipt-space" }), to("Training →", "training")));

  const directory = el("input", { class: "ipt-input", id: `${prefix}-directory`, type: "text", spellcheck: "false", onchange: () =>
    model.send({ do: "directory", value: directory.value }) });
  directory.addEventListener("keydown", ownKeys);
  const start = button("Start training", "start", true);
  const before = el("div", {}, el("div", { class: "ipt-field" },
    el("label", { class: "ipt-name", for: `${prefix}-directory`, text: "Directory of the run" }), directory,
    el("p", { class: "ipt-note", text: "Everything about the run is kept there. It goes on when the kernel restarts or the page is closed." })),
    row(start));
  const trainer = childView(model, "training");
  const again = button("New run with these settings", "new", false, "The next free directory; the settings can be changed");
  const after = el("div", {}, trainer.node, row(again, el("span", { class: "ipt-space" }), to("Adapter →", "adapter")));
  const training = el("div", {}, before, after);

  const none = el("p", { class: "ipt-note", text: "The adapter is here once the training has ended, or was stopped." });
  const facts = factsView();
  const files = el("table", { class: "ipt-files" });
  const compare = button("Ask base and tuned model", "try", true, "Serves both from this session, and shows their answers side by side");
  const end = button("Stop serving", "stop_trying");
  const merge = button("Merge into the base", "merge"), gguf = button("Write GGUF", "gguf"), card = button("Write model card", "card");
  const sides = childView(model, "sides");
  const adapter = el("div", {}, none, facts.node, files, row(compare, end, merge, gguf, card), sides.node);

  const tabs = tabsView(model, prefix, { data, settings, memory, training, adapter });
  const busy = el("span", { class: "ipt-badge", role: "status", "data-phase": "training" });
  const note = el("p", { class: "ipt-note" });
  const problem = problemBox();
  const name = el("span", { class: "ipt-title" });
  const root = el("section", { class: "ipt-panel ipt-finetune", "aria-label": "Fine-tuning, step by step" },
    el("header", {}, el("span", { class: "ipt-kind", text: "Fine-tuning" }), name, busy),
    tabs.node, note, problem.box, data, settings, memory, training, adapter);
  host.append(root);

  function draw() {
    const locked = model.get("locked"), working = Boolean(model.get("busy")), offered = model.get("offered");
    name.textContent = model.get("title");
    busy.textContent = working ? `${model.get("busy").replace(/[ .…]+$/, "")} …` : "";
    busy.hidden = !working;
    note.textContent = model.get("note");
    note.hidden = !model.get("note");
    tabs.draw();
    dataForm.show(model.get("data_fields"), locked, offered);
    settingsForm.show(model.get("settings_fields"), locked, offered);
    moreForm.show(model.get("more_fields"), locked, offered);
    columns.show(model.get("columns"), locked);
    found.show(model.get("found"));
    const fit = model.get("memory");
    bar.show(fit);
    apply.hidden = !fit.changes || locked;
    const run = Boolean(model.get("training"));
    before.hidden = run;
    after.hidden = !run;
    if (document.activeElement !== directory) directory.value = model.get("title");
    const result = model.get("result"), there = Boolean(result.files);
    again.hidden = !there;
    none.hidden = there;
    facts.show(result.facts);
    files.replaceChildren(...(result.files ?? []).map((cells) => el("tr", {}, ...cells.map((text) => el("td", { text })))));
    for (const one of [compare, merge, gguf, card]) one.hidden = !there;
    end.hidden = !model.get("sides");
    compare.hidden = compare.hidden || Boolean(model.get("sides"));
    merge.hidden = merge.hidden || result.made.includes("Merged model");
    gguf.hidden = gguf.hidden || result.made.includes("GGUF");
    for (const one of [check, probe, apply, start, compare, end, merge, gguf, card]) one.disabled = working;
    problem.show(model.get("problem"));
    trainer.draw();
    sides.draw();
  }

  draw();
  return onChange(model, ["title", "at", "steps", "busy", "note", "locked", "offered", "data_fields", "settings_fields", "more_fields",
    "columns", "found", "memory", "result", "training", "sides", "problem"], draw);
}

export default { render };
