// The training panel: a header with the phase and two buttons, the loss curve, the numbers, the error if there is one.
// All state is in the model's traits; a view only draws them.

const W = 720, H = 250, LEFT = 46, RIGHT = 22, TOP = 12, BOTTOM = 40;

function niceTicks(low, high, count) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(+(i * step).toPrecision(10));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const m of [1, 2, 5]) {
      const tick = m * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(+tick.toPrecision(3));
    }
  }
  return ticks;
}

function readPoints(view) {
  const points = [];
  for (let at = 0; view && at + 12 <= view.byteLength; at += 12) {
    points.push([view.getFloat32(at, true), view.getFloat32(at + 4, true), view.getFloat32(at + 8, true)]);
  }
  return points;
}

const number = (value) => (Math.abs(value) >= 0.01 ? value.toFixed(3) : value.toExponential(1));

function chart(model) {
  const grid = svg("g", { class: "ipt-grid" });
  const raw = svg("path", { class: "ipt-raw" });
  const smooth = svg("path", { class: "ipt-smooth" });
  const dots = svg("g", { class: "ipt-evals" });
  const cursor = svg("g", { class: "ipt-cursor", visibility: "hidden" });
  const rule = svg("line", { y1: TOP, y2: H - BOTTOM });
  const ring = svg("circle", { r: 4 });
  cursor.append(rule, ring);
  const empty = svg("text", { class: "ipt-empty", x: (W + LEFT) / 2, y: H / 2, "text-anchor": "middle" });
  empty.textContent = "The loss appears here with the first step.";
  const root = svg("svg", {
    viewBox: `0 0 ${W} ${H}`, class: "ipt-chart", tabindex: 0, role: "img", "aria-label": "Training loss by step",
  }, grid, raw, smooth, dots, cursor, empty);
  const readout = el("span", { class: "ipt-readout", "aria-live": "polite" });
  let points = [], x = () => 0, y = () => 0, log = false, at = null;

  function point(to) {
    at = points.length ? Math.min(Math.max(to, 0), points.length - 1) : null;
    if (at === null) return;
    const [step, loss, mean] = points[at];
    const px = x(step), py = y(mean);
    rule.setAttribute("x1", px);
    rule.setAttribute("x2", px);
    ring.setAttribute("cx", px);
    ring.setAttribute("cy", py);
    cursor.setAttribute("visibility", "visible");
    readout.textContent = `step ${Math.round(step)}: loss ${number(loss)}, average ${number(mean)}`;
  }

  function leave() {
    at = null;
    cursor.setAttribute("visibility", "hidden");
    readout.textContent = "";
  }

  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect();
    const wanted = ((event.clientX - box.left) / box.width) * W;
    let best = 0;
    points.forEach(([step], index) => {
      if (Math.abs(x(step) - wanted) < Math.abs(x(points[best][0]) - wanted)) best = index;
    });
    point(best);
  });
  root.addEventListener("pointerleave", leave);
  root.addEventListener("blur", leave);
  root.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
    if (by === undefined && event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation(); // the notebook would move to another cell
    if (event.key === "Escape") leave();
    else point(at === null ? points.length - 1 : at + by);
  });

  function draw() {
    points = readPoints(model.get("points")).filter((p) => Number.isFinite(p[1]));
    const evals = model.get("evals").filter((p) => Number.isFinite(p[1]));
    empty.setAttribute("visibility", points.length ? "hidden" : "visible");
    grid.replaceChildren();
    dots.replaceChildren();
    if (!points.length) {
      raw.removeAttribute("d");
      smooth.removeAttribute("d");
      leave();
      return;
    }
    const values = [...points.map((p) => p[1]), ...evals.map((p) => p[1])];
    const first = points[0][0];
    // The axis runs somewhat ahead of the run: to the end of a long one, the curve would be a stroke at the left.
    const now = points.at(-1)[0];
    const last = Math.max(Math.min(model.get("can_stop") ? model.get("total_steps") : now, now * 1.3 + 10), now, first + 1);
    const positive = values.filter((v) => v > 0);
    const useLog = log && positive.length > 0;
    const high = Math.max(...values, useLog ? 0 : 1e-9) * 1.04;
    const low = useLog ? Math.min(...positive) / 1.1 : 0;
    x = (step) => LEFT + ((step - first) / (last - first)) * (W - LEFT - RIGHT);
    const share = useLog
      ? (v) => Math.log(Math.max(v, low) / low) / Math.log(high / low)
      : (v) => v / high;
    y = (value) => TOP + (1 - share(value)) * (H - TOP - BOTTOM);
    for (const tick of useLog ? logTicks(low, high) : niceTicks(0, high, 4)) {
      const label = svg("text", { x: LEFT - 8, y: y(tick) + 4, "text-anchor": "end" });
      label.textContent = String(tick);
      grid.append(svg("line", { x1: LEFT, x2: W - RIGHT, y1: y(tick), y2: y(tick) }), label);
    }
    for (const tick of niceTicks(first, last, 6).filter(Number.isInteger)) {
      const label = svg("text", { x: x(tick), y: H - 22, "text-anchor": "middle" });
      label.textContent = String(tick);
      grid.append(label);
    }
    const name = svg("text", { x: (W + LEFT - RIGHT) / 2, y: H - 5, "text-anchor": "middle" });
    name.textContent = "optimiser step";
    grid.append(name);
    const line = (field) => "M" + points.map((p) => `${x(p[0]).toFixed(1)} ${y(p[field]).toFixed(1)}`).join("L");
    raw.setAttribute("d", line(1));
    smooth.setAttribute("d", line(2));
    for (const [step, loss] of evals) dots.append(svg("circle", { cx: x(step), cy: y(loss), r: 4 }));
    const [, , mean] = points.at(-1);
    root.setAttribute("aria-label",
      `Training loss by step: average ${number(points[0][2])} at the start, ${number(mean)} at step ` +
      `${Math.round(points.at(-1)[0])}. Arrow keys read single steps.`);
    if (at !== null) point(at);
  }

  return { root, readout, draw, setLog: (on) => { log = on; draw(); } };
}

function render({ model, el: host }) {
  const start = el("button", { class: "ipt-button ipt-primary", type: "button",
    onclick: () => model.send({ do: "start" }) });
  const stop = el("button", { class: "ipt-button", type: "button", text: "Stop",
    title: "Stops after the step it is at; checkpoint and adapter are kept", onclick: () => {
      stop.disabled = true;
      model.send({ do: "stop" });
    } });
  const phase = el("span", { class: "ipt-badge", role: "status" });
  const name = el("span", { class: "ipt-title" });
  const bar = el("div", { class: "ipt-bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100,
    "aria-label": "Progress of the training" }, el("div"));
  const plot = chart(model);
  const logBox = el("input", { type: "checkbox", onchange: (event) => plot.setLog(event.target.checked) });
  const legend = el("div", { class: "ipt-legend" },
    el("span", { class: "ipt-key ipt-key-smooth", text: "loss, moving average" }),
    el("span", { class: "ipt-key ipt-key-raw", text: "loss of each step" }));
  const evalKey = el("span", { class: "ipt-key ipt-key-eval", text: "held-out loss" });
  legend.append(evalKey, el("label", {}, logBox, "log scale"), plot.readout);
  const facts = el("div", { class: "ipt-facts" });
  const samples = el("dl", { class: "ipt-samples", "aria-label": "Answers while it learns" });
  const problem = problemBox();
  const root = el("section", { class: "ipt-panel", "aria-label": "Fine-tuning" },
    el("header", {}, el("span", { class: "ipt-kind", text: "Fine-tuning" }), name, phase,
      el("span", { class: "ipt-space" }), start, stop),
    bar, plot.root, legend, facts, samples, problem.box);
  host.append(root);

  function draw() {
    name.textContent = model.get("title");
    phase.textContent = model.get("phase_text");
    phase.dataset.phase = model.get("phase");
    start.textContent = model.get("start_label");
    start.disabled = !model.get("can_start");
    stop.disabled = !model.get("can_stop");
    const percent = model.get("progress");
    bar.setAttribute("aria-valuenow", Math.round(percent));
    bar.firstChild.style.width = `${percent}%`;
    evalKey.hidden = !model.get("evals").length;
    facts.replaceChildren(...model.get("facts").map(([label, value]) =>
      el("div", {}, el("span", { class: "ipt-label", text: label }), el("span", { class: "ipt-value", text: value }))));
    samples.hidden = !model.get("samples").length;
    samples.replaceChildren(...model.get("samples").flatMap((sample) =>
      [el("dt", { text: `step ${sample.step}: ${sample.prompt}` }), el("dd", { text: sample.answer || "(nothing)" })]));
    problem.show(model.get("problem"));
    plot.draw();
  }

  draw();
  return onChange(model, ["title", "phase", "phase_text", "start_label", "can_start", "can_stop", "progress", "facts",
    "points", "evals", "total_steps", "samples", "problem"], draw);
}

export default { render };
