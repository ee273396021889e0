// The load panel: a header with the phase and two buttons, the numbers of the moment, latency against load, a row for
// each step that is over. All state is in the model's traits; a view only draws them.

const W = 430, H = 220, LEFT = 56, RIGHT = 14, TOP = 30, BOTTOM = 40;
const COLOURS = ["var(--ipt-blue)", "var(--ipt-orange)", "var(--ipt-red)"];

function steps125(high, count) {
  const rough = high / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let i = 0; i * step <= high * 1.0001; i++) found.push(i * step);
  return found;
}

function time(seconds) {
  if (!(seconds > 0)) return "0";
  if (seconds < 1) return `${+(seconds * 1000).toPrecision(3)} ms`;
  return `${+seconds.toPrecision(3)} s`;
}

function picture(chart) {
  const lines = chart.lines.filter((line) => line.points.length);
  const all = lines.flatMap((line) => line.points);
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "ipt-chart", role: "img" });
  const title = svg("text", { x: LEFT, y: 16 });
  title.textContent = `${chart.name} against ${chart.x}`;
  root.append(title);
  root.setAttribute("aria-label", `${title.textContent}: ` + lines.map((line) =>
    `${line.name} ` + line.points.map(([x, y]) => `${time(y)} at ${x}`).join(", ")).join("; "));
  if (!all.length) return root;
  const xs = [...new Set(all.map(([x]) => x))].sort((a, b) => a - b);
  const log = xs[0] > 0 && xs.at(-1) / xs[0] >= 20;
  const low = log ? xs[0] / 1.15 : 0, high = xs.at(-1) * (log ? 1.15 : 1.05);
  const top = Math.max(...all.map(([, y]) => y)) * 1.06 || 1;
  const px = (x) => LEFT + (log ? Math.log(x / low) / Math.log(high / low) : x / high) * (W - LEFT - RIGHT);
  const py = (y) => TOP + (1 - y / top) * (H - TOP - BOTTOM);
  const grid = svg("g", { class: "ipt-grid" });
  for (const tick of steps125(top, 4)) {
    const label = svg("text", { x: LEFT - 6, y: py(tick) + 4, "text-anchor": "end" });
    label.textContent = time(tick);
    grid.append(svg("line", { x1: LEFT, x2: W - RIGHT, y1: py(tick), y2: py(tick) }), label);
  }
  let right = -Infinity;
  for (const x of xs) {
    if (px(x) - right < 28) continue; // labels must not run into one another
    right = px(x);
    const label = svg("text", { x: right, y: H - BOTTOM + 15, "text-anchor": "middle" });
    label.textContent = String(x);
    grid.append(label);
  }
  root.append(grid);
  lines.forEach((line, index) => {
    const colour = COLOURS[index % COLOURS.length];
    const d = "M" + line.points.map(([x, y]) => `${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("L");
    root.append(svg("path", { d, fill: "none", "stroke-width": 2, style: `stroke:${colour}` }));
    for (const [x, y] of line.points) {
      const tip = svg("title");
      tip.textContent = `${line.name} at ${x}: ${time(y)}`;
      root.append(svg("circle", { cx: px(x), cy: py(y), r: 3.5, style: `fill:${colour}` }, tip));
    }
    const key = svg("text", { x: LEFT + 18 + index * 56, y: H - 6 });
    key.textContent = line.name;
    root.append(svg("line", { x1: LEFT + index * 56, x2: LEFT + 14 + index * 56, y1: H - 10, y2: H - 10,
      "stroke-width": 2.5, style: `stroke:${colour}` }), key);
  });
  return root;
}

function render({ model, el: host }) {
  const start = el("button", { class: "ipt-button ipt-primary", type: "button", text: "Start",
    onclick: () => model.send({ do: "start" }) });
  const stop = el("button", { class: "ipt-button", type: "button", text: "Stop",
    title: "Ends the step it is at; what was measured is kept", onclick: () => {
      stop.disabled = true;
      model.send({ do: "stop" });
    } });
  const phase = el("span", { class: "ipt-badge", role: "status" });
  const name = el("span", { class: "ipt-title" });
  const bar = el("div", { class: "ipt-bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100,
    "aria-label": "Progress of the measurement" }, el("div"));
  const facts = el("div", { class: "ipt-facts" });
  const charts = el("div", { style: "display:flex;flex-wrap:wrap;gap:8px 20px;margin-top:12px" });
  const head = el("thead"), body = el("tbody");
  const table = el("div", { style: "overflow-x:auto" },
    el("table", { class: "ipt-files", "aria-label": "Steps of the measurement" }, head, body));
  const notes = el("ul", { class: "ipt-findings", "aria-label": "Notes" });
  const problem = problemBox();
  host.append(el("section", { class: "ipt-panel", "aria-label": "Load" },
    el("header", {}, el("span", { class: "ipt-kind", text: "Load" }), name, phase,
      el("span", { class: "ipt-space" }), start, stop),
    bar, facts, charts, table, notes, problem.box));

  let drawn = null;
  function draw() {
    name.textContent = model.get("title");
    phase.textContent = model.get("phase_text");
    const at = model.get("phase");
    phase.dataset.phase = { measuring: "training", saturated: "completed" }[at] ?? at;
    start.disabled = !model.get("can_start");
    stop.disabled = !model.get("can_stop");
    bar.setAttribute("aria-valuenow", Math.round(model.get("progress")));
    bar.firstChild.style.width = `${model.get("progress")}%`;
    facts.hidden = !model.get("facts").length;
    facts.replaceChildren(...model.get("facts").map(([label, value]) =>
      el("div", {}, el("span", { class: "ipt-label", text: label }), el("span", { class: "ipt-value", text: value }))));
    // Steps change rarely, the numbers of the moment often: what did not change is not built anew.
    const next = JSON.stringify([model.get("heads"), model.get("rows"), model.get("charts"), model.get("notes")]);
    if (next !== drawn) {
      drawn = next;
      table.hidden = !model.get("rows").length;
      head.replaceChildren(el("tr", {}, ...model.get("heads").map((text) => el("th", { text, scope: "col" }))));
      body.replaceChildren(...model.get("rows").map((cells) => el("tr", {}, ...cells.map((text) => el("td", { text })))));
      charts.replaceChildren(...model.get("charts").map((chart) =>
        el("div", { style: "flex:1 1 320px;max-width:460px" }, picture(chart))));
      notes.hidden = !model.get("notes").length;
      notes.replaceChildren(...model.get("notes").map((text) => el("li", { text })));
    }
    problem.show(model.get("problem"));
  }

  draw();
  return onChange(model, ["title", "phase", "phase_text", "progress", "facts", "heads", "rows", "charts", "notes",
    "can_start", "can_stop", "problem"], draw);
}

export default { render };
