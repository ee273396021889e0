// An evaluation: progress and cost, results as a table with models as rows, verdicts, questions with failures first.

const PHASES = {
  idle: "not started", reading: "reading the data", asking: "asking", judging: "the judge compares",
  stopping: "stopping", completed: "completed", stopped: "stopped", failed: "failed",
};
const GOING = ["reading", "asking", "judging", "stopping"];

// The interval as a line from 0 to 100 %, the mean as a dot on it; the words beside it say the same.
function intervalView(result) {
  const x = (value) => 4 + 142 * Math.min(Math.max(value, 0), 1);
  return svg("svg", { class: "ipt-interval", viewBox: "0 0 150 12", "aria-hidden": "true" },
    svg("line", { class: "ipt-scale", x1: 4, x2: 146, y1: 6, y2: 6 }),
    svg("line", { class: "ipt-range", x1: x(result.low), x2: x(result.high), y1: 6, y2: 6 }),
    svg("circle", { cx: x(result.mean), cy: 6, r: 4 }));
}

function resultsTable(scorers, columns) {
  const head = el("tr", {}, el("th", { text: "Model", scope: "col" }),
    ...scorers.map((name) => el("th", { text: name, scope: "col" })), el("th", { text: "Answers", scope: "col" }));
  const rows = columns.map((column) => {
    const cells = (column.results ?? []).map((result) => (result.words
      ? el("td", {}, el("span", { text: result.words }), intervalView(result)) : el("td", { text: "–" })));
    const problem = problemBox();
    problem.show(column.problem);
    return el("tr", {}, el("th", { scope: "row" }, el("strong", { text: column.name }),
      el("div", { class: "ipt-title", text: column.model === column.name ? "" : column.model }), problem.box),
    ...cells, el("td", { text: column.done ?? "" }));
  });
  return [el("thead", {}, head), el("tbody", {}, ...rows)];
}

function casesTable(columns, rows) {
  const head = el("tr", {}, el("th", { text: "Question", scope: "col" }),
    ...columns.map((column) => el("th", { text: column.name, scope: "col" })));
  const body = rows.map((row) => {
    const asked = el("td", {}, el("div", { class: "ipt-marks", text: `line ${row.line}` }),
      el("div", { class: "ipt-case", text: row.question }));
    if (row.expected) {
      asked.append(el("div", { class: "ipt-marks", text: "expected" }), el("div", { class: "ipt-case", text: row.expected }));
    }
    const cells = columns.map((column) => el("td", {}, ...row.answers
      .filter((answer) => answer.endpoint === column.name)
      .flatMap((answer) => [
        el("div", { class: "ipt-marks", "data-failed": String(answer.failed), text: answer.marks.join(" · ") }),
        el("div", { class: "ipt-case", text: answer.text || "(empty)" }),
      ])));
    return el("tr", {}, asked, ...cells);
  });
  return [el("thead", {}, head), el("tbody", {}, ...body)];
}

function render({ model, el: host }) {
  const title = el("span", { class: "ipt-title" });
  const badge = el("span", { class: "ipt-badge", role: "status" });
  const start = el("button", { class: "ipt-button ipt-primary", type: "button", text: "Start",
    onclick: () => model.send({ do: "start" }) });
  const stop = el("button", { class: "ipt-button", type: "button", text: "Stop", onclick: () => model.send({ do: "stop" }) });
  const fill = el("div");
  const bar = el("div", { class: "ipt-bar", role: "progressbar", "aria-label": "Answers", "aria-valuemin": 0,
    "aria-valuemax": 100 }, fill);
  const facts = el("div", { class: "ipt-facts" });
  const results = el("table", { class: "ipt-results" });
  const verdicts = el("ul", { class: "ipt-verdicts", "aria-label": "What the numbers say" });
  const cases = el("table", { class: "ipt-results" });
  const box = el("div", { class: "ipt-cases", tabindex: 0, role: "region", "aria-label": "Questions, failures first" }, cases);
  const note = el("p", { class: "ipt-note" });
  const problem = problemBox();
  host.append(el("section", { class: "ipt-panel", "aria-label": "Evaluation" },
    el("header", {}, el("span", { class: "ipt-kind", text: "Evaluation" }), title, badge, el("span", { class: "ipt-space" }),
      start, stop),
    problem.box, bar, facts, results, verdicts, box, note));

  // Tables are built anew only when what they show has changed, so that a reader's place and selection stay.
  const shown = {};
  function changed(name, value) {
    const next = JSON.stringify(value);
    if (shown[name] === next) return false;
    shown[name] = next;
    return true;
  }
  function draw() {
    const phase = model.get("phase");
    const columns = model.get("columns");
    const rows = model.get("rows");
    title.textContent = model.get("title");
    badge.textContent = PHASES[phase] ?? phase;
    badge.dataset.phase = phase === "asking" || phase === "judging" ? "writing" : phase;
    start.disabled = GOING.includes(phase) || phase === "completed";
    start.textContent = phase === "stopped" || phase === "failed" ? "Go on" : "Start";
    stop.disabled = !GOING.includes(phase) || phase === "stopping";
    const percent = model.get("percent");
    fill.style.width = `${percent}%`;
    bar.setAttribute("aria-valuenow", String(Math.round(percent)));
    if (changed("facts", model.get("facts"))) {
      facts.replaceChildren(...model.get("facts").map(([label, value]) =>
        el("div", {}, el("span", { class: "ipt-label", text: label }), el("span", { class: "ipt-value", text: value }))));
    }
    facts.hidden = !model.get("facts").length;
    if (changed("results", [model.get("scorers"), columns])) {
      results.replaceChildren(...resultsTable(model.get("scorers"), columns));
    }
    if (changed("verdicts", model.get("verdicts"))) {
      verdicts.replaceChildren(...model.get("verdicts").map((words) => el("li", { text: words })));
    }
    verdicts.hidden = !model.get("verdicts").length;
    if (changed("rows", [columns.map((column) => column.name), rows])) cases.replaceChildren(...casesTable(columns, rows));
    box.hidden = !rows.length;
    note.textContent = model.get("note");
    note.hidden = !model.get("note");
    problem.show(model.get("problem"));
  }
  draw();
  return onChange(model, ["phase", "title", "percent", "facts", "scorers", "columns", "rows", "verdicts", "note", "problem"],
    draw);
}

export default { render };
