// The chat panel: which endpoint, the conversation, the prompt. Another endpoint, and a key, can be typed.

function render({ model, el: host }) {
  const chooser = el("select", { class: "ipt-select", "aria-label": "Endpoint", onchange: () => {
    model.set("chosen", Number(chooser.value));
    model.save_changes();
  } });
  const where = el("span", { class: "ipt-title" });
  const undo = el("button", { class: "ipt-link", type: "button", text: "Undo",
    title: "Bring back what was replaced or cleared", onclick: () => model.send({ do: "undo" }) });
  const redo = el("button", { class: "ipt-link", type: "button", text: "Redo",
    title: "Take the last Undo back", onclick: () => model.send({ do: "redo" }) });
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
  const settings = settingsView(model);
  const write = composer(model, { label: "Ask the endpoint…", send: (field) => {
    model.send({ do: "send", prompt: field.value });
    field.value = "";
  } });
  host.append(el("section", { class: "ipt-panel", "aria-label": "Chat with an endpoint" },
    el("header", {}, el("span", { class: "ipt-kind", text: "Endpoint" }), chooser, where,
      el("span", { class: "ipt-space" }),
      el("label", { class: "ipt-check", title: "Send the earlier turns along" }, remember, "conversation"), undo, redo,
      clear),
    log, problem.box, write.node,
    el("div", { class: "ipt-more" }, settings.node, key, form)));

  const rows = [];
  const showEndpoints = whenChanged((endpoints) => {
    chooser.replaceChildren(...endpoints.map((item, index) => el("option", { value: index, text: item.name })));
  });
  function draw() {
    const endpoints = model.get("endpoints");
    const busy = model.get("busy");
    showEndpoints(endpoints);
    chooser.value = String(model.get("chosen"));
    chooser.hidden = endpoints.length === 0;
    const now = endpoints[model.get("chosen")];
    where.textContent = now
      ? [now.model === now.name ? "" : now.model, now.url, now.key].filter(Boolean).join(" · ")
      : "Add an endpoint below to begin.";
    key.hidden = !now;
    form.open = form.open || endpoints.length === 0;
    remember.checked = model.get("remember");
    const live = model.get("live");
    const writing = live.prompt === undefined ? [] : joined([live], model.get("grown"));
    const turns = [...model.get("turns"), ...writing];
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    while (rows.length > turns.length) rows.pop().node.remove();
    turns.forEach((turn, index) => {
      if (!rows[index]) {
        const said = turnView(model, "ipt-said");
        const answer = answerView();
        const node = el("div", { class: "ipt-turn" }, said.node, answer.node);
        rows.push({ node, said, show: whenChanged((value) => answer.show(value)) });
        log.append(node);
      }
      rows[index].said.show(turn, busy);
      rows[index].show(turn); // finished turns need no drawing
    });
    log.hidden = turns.length === 0;
    clear.hidden = turns.length === 0;
    undo.hidden = !model.get("undoable");
    redo.hidden = !model.get("redoable");
    clear.disabled = undo.disabled = redo.disabled = busy;
    if (atEnd) log.scrollTop = log.scrollHeight; // follow the text, unless the reader has scrolled up
    problem.show(model.get("problem"));
    settings.draw();
    write.draw();
  }
  draw();
  log.scrollTop = log.scrollHeight;
  return onChange(model, ["endpoints", "chosen", "remember", "turns", "live", "grown", "busy", "undoable", "redoable",
    "parameters", "system", "problem"], draw);
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
