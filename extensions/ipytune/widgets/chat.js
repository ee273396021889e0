// The chat panel: which endpoint, the conversation, the prompt. Another endpoint, and a key, can be typed; the key goes
// out in one message and its field is emptied before anything can keep it.

function render({ model, el: host }) {
  const chooser = el("select", { class: "ipt-select", "aria-label": "Endpoint", onchange: () => {
    model.set("chosen", Number(chooser.value));
    model.save_changes();
  } });
  const where = el("span", { class: "ipt-title" });
  const clear = el("button", { class: "ipt-link", type: "button", text: "Clear",
    title: "Forget this conversation", onclick: () => model.send({ do: "clear" }) });
  const remember = el("input", { type: "checkbox", onchange: () => {
    model.set("remember", remember.checked);
    model.save_changes();
  } });
  const log = el("div", { class: "ipt-log", role: "log", "aria-label": "Conversation" });
  const problem = problemBox();
  const form = endpointForm(model);
  const key = keyField(model);
  const write = composer(model, { label: "Ask the endpoint…", send: (field) => {
    model.send({ do: "send", prompt: field.value });
    field.value = "";
  } });
  host.append(el("section", { class: "ipt-panel", "aria-label": "Chat with an endpoint" },
    el("header", {}, el("span", { class: "ipt-kind", text: "Endpoint" }), chooser, where,
      el("span", { class: "ipt-space" }),
      el("label", { class: "ipt-check", title: "Send the earlier turns along" }, remember, "conversation"), clear),
    log, problem.box, write.node,
    el("div", { class: "ipt-more" }, key, form)));

  const rows = [];
  function draw() {
    const endpoints = model.get("endpoints");
    const chosen = model.get("chosen");
    chooser.replaceChildren(...endpoints.map((item, index) =>
      el("option", { value: index, selected: index === chosen, text: item.name })));
    chooser.hidden = endpoints.length === 0;
    const now = endpoints[chosen];
    where.textContent = now
      ? [now.model === now.name ? "" : now.model, now.url, now.key].filter(Boolean).join(" · ")
      : "Add an endpoint below to begin.";
    key.hidden = !now;
    form.open = form.open || endpoints.length === 0;
    remember.checked = model.get("remember");
    const live = model.get("live");
    const turns = [...model.get("turns"), ...(live.prompt === undefined ? [] : [live])];
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    while (rows.length > turns.length) rows.pop().node.remove();
    turns.forEach((turn, index) => {
      if (!rows[index]) {
        const said = el("div", { class: "ipt-said" });
        const answer = answerView();
        const node = el("div", { class: "ipt-turn" }, said, answer.node);
        rows.push({ node, said, answer, drawn: "" });
        log.append(node);
      }
      const row = rows[index];
      const next = JSON.stringify(turn);
      if (row.drawn === next) return; // finished turns need no drawing
      row.drawn = next;
      row.said.textContent = turn.prompt;
      row.answer.show(turn);
    });
    log.hidden = turns.length === 0;
    clear.hidden = turns.length === 0;
    clear.disabled = model.get("busy");
    if (atEnd) log.scrollTop = log.scrollHeight; // follow the text, unless the reader has scrolled up
    problem.show(model.get("problem"));
    write.draw();
  }
  draw();
  log.scrollTop = log.scrollHeight;
  return onChange(model, ["endpoints", "chosen", "remember", "turns", "live", "busy", "problem"], draw);
}

function secretInput(label) {
  return el("input", { class: "ipt-input", type: "password", autocomplete: "off", spellcheck: "false",
    placeholder: label, "aria-label": label, onkeydown: ownKeys });
}

function keyField(model) {
  const value = secretInput("Key for this endpoint");
  const use = el("button", { class: "ipt-button", type: "button", text: "Use key", onclick: () => {
    model.send({ do: "key", value: value.value });
    value.value = "";
    box.open = false;
  } });
  const box = el("details", {}, el("summary", { text: "Type a key" }),
    el("p", { class: "ipt-note", text: "Kept in this session's memory only; not saved with the notebook. Better: put it "
      + "into a variable or a file, and name that in the endpoint." }),
    el("div", { class: "ipt-fields" }, value, use));
  return box;
}

function endpointForm(model) {
  const field = (label, extra = {}) => el("input", { class: "ipt-input", type: "text", spellcheck: "false",
    placeholder: label, "aria-label": label, onkeydown: ownKeys, ...extra });
  const url = field("https://host/v1", { class: "ipt-input ipt-wide" });
  const name = field("model (empty: the server's only one)");
  const variable = field("variable with the key, e.g. OPENAI_API_KEY");
  const secret = secretInput("or the key itself");
  const add = el("button", { class: "ipt-button", type: "button", text: "Add", onclick: () => {
    model.send({ do: "add", url: url.value, model: name.value, key_env: variable.value, key: secret.value });
    secret.value = "";
  } });
  return el("details", {}, el("summary", { text: "Another endpoint" }),
    el("div", { class: "ipt-fields" }, url, name, variable, secret, add));
}

export default { render };
