// One answer: who wrote it, how it goes, the text as it comes, the numbers. Used by the chat and by the comparison.

const STATES = { waiting: "waiting", writing: "writing", done: "", cancelled: "cancelled", failed: "failed" };

function answerView() {
  const name = el("strong");
  const model = el("span", { class: "ipt-title" });
  const badge = el("span", { class: "ipt-badge", role: "status" });
  const thinking = el("details", { class: "ipt-thinking", hidden: true }, el("summary", { text: "Reasoning" }), el("pre"));
  const text = el("div", { class: "ipt-text" });
  const facts = el("div", { class: "ipt-facts" });
  const note = el("p", { class: "ipt-note", hidden: true });
  const problem = problemBox();
  const copy = el("button", { class: "ipt-link", type: "button", text: "Copy", hidden: true, onclick: async () => {
    await navigator.clipboard.writeText(text.textContent);
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  } });
  const node = el("article", { class: "ipt-answer" },
    el("div", { class: "ipt-by" }, name, model, badge, el("span", { class: "ipt-space" }), copy),
    thinking, text, problem.box, note, facts);
  return {
    node,
    show(answer) {
      name.textContent = answer.endpoint;
      model.textContent = answer.model === answer.endpoint ? "" : answer.model;
      badge.textContent = STATES[answer.state] ?? "";
      badge.dataset.phase = answer.state ?? "";
      badge.hidden = !badge.textContent;
      thinking.hidden = !answer.reasoning;
      thinking.lastChild.textContent = answer.reasoning ?? "";
      if (text.textContent !== (answer.text ?? "")) text.textContent = answer.text ?? "";
      text.classList.toggle("ipt-writing", answer.state === "waiting" || answer.state === "writing");
      text.hidden = answer.state === "failed" && !answer.text;
      node.setAttribute("aria-busy", String(answer.state === "waiting" || answer.state === "writing"));
      copy.hidden = !answer.text || !navigator.clipboard;
      note.textContent = answer.note ?? "";
      note.hidden = !answer.note;
      facts.hidden = !answer.facts?.length;
      facts.replaceChildren(...(answer.facts ?? []).map(([label, value]) =>
        el("div", {}, el("span", { class: "ipt-label", text: label }), el("span", { class: "ipt-value", text: value }))));
      problem.show(answer.problem);
    },
  };
}

// A prompt field with its two buttons. Enter sends, Shift+Enter makes a new line, Escape cancels.
function composer(model, { label, send }) {
  const field = el("textarea", { class: "ipt-prompt", rows: 2, placeholder: label, "aria-label": label });
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
