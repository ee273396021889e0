// The progress page: follows one start to its end, through restarts of the hub; cancels it; moves it to another target.
(function () {
  "use strict";
  const session = JSON.parse(document.getElementById("hybrid-session").textContent);
  const xsrf = (window.jhdata || {}).xsrf_token || "";
  const path = [session.user, session.server].filter(Boolean).map(encodeURIComponent).join("/");
  const url = `${session.base}api/hybridspawner/sessions/${path}`;
  const element = (id) => document.getElementById(id);
  const steps = element("hybrid-steps"), bar = element("progress-bar"), failure = element("hybrid-failure");
  const cancel = element("hybrid-cancel"), away = element("hybrid-away");
  let source = null, over = false;

  function ended(title) {
    over = true;
    if (source) source.close();
    steps.classList.add("hybrid-failed");
    steps.querySelectorAll("button").forEach((button) => { button.disabled = true; });
    element("hybrid-title").textContent = title;
    element("hybrid-lead").hidden = cancel.hidden = true;
    element("hybrid-again").hidden = false;
  }

  function paragraph(text, className) {
    const p = document.createElement("p");
    p.textContent = text;
    if (className) p.className = className;
    return p;
  }

  function showFailure(event) {
    bar.classList.add("bg-danger");
    failure.replaceChildren();
    if (event.what) {
      failure.append(paragraph(event.what, "fw-bold mb-1"), paragraph(event.why, "mb-1"), paragraph(event.remedy, "mb-1"));
      if (event.evidence) {
        const details = document.createElement("details"), summary = document.createElement("summary"), text = document.createElement("pre");
        summary.textContent = "Details";
        text.textContent = event.evidence;
        details.append(summary, text);
        failure.append(details);
      }
    } else {
      failure.append(paragraph(event.message, "mb-0"));
    }
    failure.hidden = false;
    ended("Your session could not be started");
  }

  async function call(method, body) {
    const answer = await fetch(url, {
      method, body: body && JSON.stringify(body),
      headers: { "X-XSRFToken": xsrf, "Content-Type": "application/json" },
    });
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).message || `The hub answered ${answer.status}.`);
    return answer;
  }

  function offerButton(offer) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn btn-outline-primary btn-sm ms-2";
    button.textContent = `Start on ${offer.title} instead`;
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await call("POST", { target: offer.target });
      } catch (error) {
        button.replaceWith(paragraph(error.message, "hybrid-muted mb-0"));
      }
    });
    return button;
  }

  function showStep(event) {
    const step = document.createElement("li"), time = document.createElement("time");
    time.textContent = `${Math.round(event.at || 0)} s`;
    if (event.html_message) step.innerHTML = event.html_message; else step.textContent = event.message;
    steps.querySelectorAll("button").forEach((button) => button.remove()); // an offer holds until the next news
    if (event.offer) step.append(offerButton(event.offer));
    step.append(time);
    steps.append(step);
  }

  function follow() {
    source = new EventSource(`${url}?_xsrf=${encodeURIComponent(xsrf)}`);
    source.onopen = () => { steps.replaceChildren(); away.hidden = true; }; // every stream tells the whole story
    source.onmessage = (message) => {
      const event = JSON.parse(message.data);
      if (event.progress !== undefined) {
        bar.style.width = `${event.progress}%`;
        bar.setAttribute("aria-valuenow", event.progress);
      }
      if (event.ready) { source.close(); window.location.reload(); }
      else if (event.failed) showFailure(event);
      else if (event.message) showStep(event);
    };
    source.onerror = async () => {
      source.close();
      if (over) return;
      const answers = await fetch(`${session.base}api/`).then((answer) => answer.ok, () => false);
      if (over) return;
      if (answers && away.hidden) { setTimeout(() => { if (!over) window.location.reload(); }, 1500); return; }
      away.hidden = answers;
      setTimeout(follow, 1500);
    };
  }

  cancel.addEventListener("click", async () => {
    cancel.disabled = true;
    cancel.textContent = "Cancelling…";
    if (source) source.close();
    over = true;
    try {
      const answer = await call("DELETE");
      failure.className = "hybrid-failure alert alert-info";
      const going = answer.status === 202 ? " What it had begun is still being ended; nothing more is needed from you." : "";
      failure.replaceChildren(paragraph(`The start was cancelled.${going}`, "mb-0"));
      failure.hidden = false;
      ended("Cancelled");
    } catch (error) {
      over = false;
      cancel.disabled = false;
      cancel.textContent = "Cancel";
      failure.replaceChildren(paragraph(`The hub could not cancel it: ${error.message}`, "mb-0"));
      failure.hidden = false;
      follow();
    }
  });
  window._jupyterhub_page_loaded = true;
  follow();
})();
