// Answers side by side: one prompt field, a column for each endpoint, votes, what differs, the rounds before. Which column
// is whose, in a blind comparison, is not known here before Python tells it.

function render({ model, el: host }) {
  const link = (text, title, message) => el("button", { class: "ipt-link", type: "button", text, title,
    onclick: () => model.send(message) });
  const check = (name, text, title) => {
    const box = el("input", { type: "checkbox", onchange: () => {
      model.set(name, box.checked);
      model.save_changes();
    } });
    return { box, node: el("label", { class: "ipt-check", title }, box, text) };
  };
  const blind = check("blind", "blind", "Shuffle the columns and hide the names until a vote");
  const remember = check("remember", "conversation", "Send a column's earlier answers along");
  const fresh = link("New conversation", "The next prompt stands alone", { do: "new" });
  const undo = link("Undo", "Bring back what was replaced or cleared", { do: "undo" });
  const redo = link("Redo", "Take the last Undo back", { do: "redo" });
  const clear = link("Clear", "Forget all rounds; votes stay", { do: "clear" });

  const earlier = el("div", { class: "ipt-rounds" });
  const before = el("details", { class: "ipt-before", hidden: true }, el("summary"), earlier);
  const asked = turnView(model, "ipt-asked");
  const grid = el("div", { class: "ipt-columns" });
  const note = el("p", { class: "ipt-note" });
  const problem = problemBox();
  const ballot = el("div", { class: "ipt-ballot", role: "group", "aria-label": "Which answer is better?" });
  const reveal = el("button", { class: "ipt-link", type: "button", text: "Show the names",
    onclick: () => model.send({ do: "reveal" }) });
  const tally = el("div", { class: "ipt-tally", role: "status" });
  const differences = el("div");
  const chooser = el("select", { class: "ipt-select", "aria-label": "Endpoint of the key", onkeydown: ownKeys });
  const key = keyField(model, chooser);
  const times = { name: "repeat", kind: "number", label: "Times", help: "Answers a column, to see how stable they are." };
  const settings = settingsView(model, (control) => [control(times, () => model.get("repeat"))]);
  const saved = exportView(model);
  const write = composer(model, { label: "Ask all of them…", send: (field) => {
    model.send({ do: "send", prompt: field.value });
    field.value = "";
  } });
  host.append(el("section", { class: "ipt-panel ipt-wider", "aria-label": "Answers side by side" },
    el("header", {}, el("span", { class: "ipt-kind", text: "Side by side" }), el("span", { class: "ipt-space" }),
      blind.node, remember.node, fresh, undo, redo, clear),
    before, write.node, problem.box, asked.node, grid, note,
    el("div", { class: "ipt-row" }, ballot, reveal), tally, differences,
    el("div", { class: "ipt-more" }, settings.node, key, saved.node)));

  const views = [];
  const rows = new Map();
  let drafted = null;
  const showChoices = whenChanged((choices) => {
    const held = ballot.contains(document.activeElement) ? document.activeElement.dataset.choice : null;
    ballot.replaceChildren(...choices.map(([choice, label]) => el("button", { class: "ipt-button", type: "button",
      "data-choice": choice, text: label, onclick: () => model.send({ do: "vote", choice }) })));
    if (held) ballot.querySelector(`[data-choice="${held}"]`)?.focus();
  });
  const showTally = whenChanged((lines) => {
    tally.replaceChildren(...lines.map((line) => el("div", { text: line })));
    tally.hidden = lines.length === 0;
  });
  const showDifferences = whenChanged((found) => {
    const open = [...differences.children].map((box) => box.open);
    differences.replaceChildren(...found.map(({ title, parts }, at) => el("details", { class: "ipt-difference",
      open: open[at] ?? false }, el("summary", { text: title }), el("div", { class: "ipt-text", dir: "auto" },
      ...parts.map(([kind, text]) => kind === "same" ? text : el(kind, { text }))))));
  });
  const showEndpoints = whenChanged((endpoints) => {
    const held = chooser.value;
    chooser.replaceChildren(...endpoints.map((item) =>
      el("option", { value: item.name, text: `${item.name} · ${item.key}` })));
    if (held) chooser.value = held;
  });

  function drawEarlier(rounds, busy) {
    const there = new Set(rounds.map((round) => round.number));
    for (const [number, row] of rows) {
      if (!there.has(number)) {
        row.node.remove();
        rows.delete(number);
      }
    }
    for (const round of rounds) {
      if (!rows.has(round.number)) rows.set(round.number, roundView(model));
      const row = rows.get(round.number);
      row.show(round, busy);
      if (row.node.parentNode !== earlier) earlier.append(row.node);
    }
    before.hidden = rounds.length === 0;
    before.firstChild.textContent = rounds.length === 1 ? "1 round before" : `${rounds.length} rounds before`;
  }

  function draw() {
    const busy = model.get("busy");
    const round = model.get("asked");
    if (drafted !== model.get("prompt")) {
      drafted = model.get("prompt");
      // What was sent stands above the columns already.
      if (round.prompt !== drafted) write.field.value = drafted;
    }
    const columns = joined(model.get("columns"), model.get("grown"));
    while (views.length > columns.length) views.pop().node.remove();
    columns.forEach((column, index) => {
      if (!views[index]) {
        views[index] = answerView();
        grid.append(views[index].node);
      }
      views[index].show(column);
      views[index].node.classList.toggle("ipt-best", round.vote === "ABCD"[index]);
    });
    grid.style.setProperty("--ipt-count", columns.length);
    asked.node.hidden = round.number === undefined;
    asked.show(round, busy);
    drawEarlier(model.get("rounds"), busy);
    note.textContent = model.get("note");
    note.hidden = !model.get("note");
    blind.box.checked = model.get("blind");
    remember.box.checked = model.get("remember");
    undo.hidden = !model.get("undoable");
    redo.hidden = !model.get("redoable");
    clear.hidden = fresh.hidden = round.number === undefined;
    fresh.disabled = clear.disabled = undo.disabled = redo.disabled = busy;
    showChoices(model.get("choices"));
    for (const button of ballot.children) {
      button.setAttribute("aria-pressed", String(button.dataset.choice === round.vote));
    }
    ballot.hidden = model.get("choices").length === 0;
    reveal.hidden = !model.get("hidden");
    showTally(model.get("tally"));
    showDifferences(model.get("differences"));
    showEndpoints(model.get("endpoints"));
    problem.show(model.get("problem"));
    settings.draw();
    saved.draw();
    write.draw();
  }
  draw();
  return onChange(model, ["prompt", "endpoints", "columns", "grown", "asked", "rounds", "busy", "note", "parameters",
    "system", "repeat", "remember", "blind", "hidden", "choices", "tally", "differences", "undoable", "redoable", "exported",
    "problem"], draw);
}

// A round that is over: what was asked, and the answers beside one another.
function roundView(model) {
  const turn = turnView(model, "ipt-asked");
  const grid = el("div", { class: "ipt-columns" });
  const node = el("section", { class: "ipt-round" }, turn.node, grid);
  const views = [];
  const showColumns = whenChanged(({ columns, vote, fresh }) => {
    node.classList.toggle("ipt-fresh", fresh);
    grid.style.setProperty("--ipt-count", columns.length);
    columns.forEach((column, index) => {
      if (!views[index]) {
        views[index] = answerView();
        grid.append(views[index].node);
      }
      views[index].show(column);
      views[index].node.classList.toggle("ipt-best", vote === "ABCD"[index]);
    });
  });
  return {
    node,
    show(round, busy) {
      turn.show(round, busy);
      node.setAttribute("aria-label", `Round: ${round.prompt.slice(0, 80)}`);
      showColumns(round);
    },
  };
}

function exportView(model) {
  const button = (text, format) => el("button", { class: "ipt-button", type: "button", text,
    onclick: () => model.send({ do: "export", format }) });
  const said = el("p", { class: "ipt-note", role: "status", hidden: true });
  const code = el("pre", { class: "ipt-code" });
  const source = el("div", { hidden: true }, copyButton(() => code.textContent, "Copy the cell"), code);
  const node = el("details", {}, el("summary", { text: "Export" }),
    el("p", { class: "ipt-note", text: "Written beside the notebook, under a new name. Keys are not in it." }),
    el("div", { class: "ipt-fields" }, button("Notebook cell", "cell"), button("JSON", "json"), button("HTML", "html")),
    said, source);
  return {
    node,
    draw() {
      const made = model.get("exported");
      said.textContent = made.path ? `Written: ${made.path}` : "";
      said.hidden = !made.path;
      if (code.textContent !== (made.code ?? "")) code.textContent = made.code ?? "";
      source.hidden = !made.code;
    },
  };
}

export default { render };
