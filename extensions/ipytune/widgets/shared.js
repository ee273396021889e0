// Shared by the panels: building elements, labels, the error box. Text from models and servers is only ever set as
// text, never as HTML.

function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function svg(tag, props = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Keys typed into a field are text, not the notebook's commands; what is pressed with Ctrl (to save) is not text.
function ownKeys(event) {
  if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
}

// The error box: what, why, remedy; a log, if there is one, folded under it. Built anew only when it changes, so that
// an opened log stays open.
function problemBox() {
  const box = el("div", { class: "ipt-problem", role: "alert", hidden: true });
  let shown = "";
  return {
    box,
    show(problem) {
      const next = JSON.stringify(problem ?? {});
      if (next === shown) return;
      shown = next;
      box.replaceChildren();
      box.hidden = !problem?.what;
      if (box.hidden) return;
      box.append(el("strong", { text: problem.what }));
      if (problem.why) box.append(el("p", { text: problem.why }));
      if (problem.remedy) box.append(el("p", { class: "ipt-remedy", text: problem.remedy }));
      if (problem.log) {
        box.append(el("details", {}, el("summary", { text: "End of the log" }), el("pre", { text: problem.log })));
      }
    },
  };
}

// Calls `draw` at most once a frame, however many traits change at once; returns what undoes the subscriptions.
function onChange(model, names, draw) {
  let due = 0;
  const later = () => {
    if (!due) due = requestAnimationFrame(() => { due = 0; draw(); });
  };
  for (const name of names) model.on(`change:${name}`, later);
  return () => {
    if (due) cancelAnimationFrame(due);
    for (const name of names) model.off(`change:${name}`, later);
  };
}
