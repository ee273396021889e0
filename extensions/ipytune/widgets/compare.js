// Answers side by side: one prompt field, a column for each endpoint.

function render({ model, el: host }) {
  const grid = el("div", { class: "ipt-columns" });
  const note = el("p", { class: "ipt-note" });
  const problem = problemBox();
  const write = composer(model, { label: "Ask all of them…", send: (field) => {
    model.send({ do: "send", prompt: field.value });
  } });
  host.append(el("section", { class: "ipt-panel", "aria-label": "Answers side by side" },
    el("header", {}, el("span", { class: "ipt-kind", text: "Side by side" })),
    write.node, problem.box, grid, note));

  const views = [];
  let prompt = null;
  function draw() {
    if (prompt !== model.get("prompt")) {
      prompt = model.get("prompt");
      write.field.value = prompt;
    }
    const columns = model.get("columns");
    columns.forEach((column, index) => {
      if (!views[index]) {
        views[index] = answerView();
        grid.append(views[index].node);
      }
      views[index].show(column);
    });
    grid.style.setProperty("--ipt-count", columns.length);
    note.textContent = model.get("note");
    note.hidden = !model.get("note");
    problem.show(model.get("problem"));
    write.draw();
  }
  draw();
  return onChange(model, ["prompt", "columns", "busy", "note", "problem"], draw);
}

export default { render };
