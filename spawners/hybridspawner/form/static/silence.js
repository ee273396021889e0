// Tells on every page which target does not answer at the moment. The hub answers from what it knows; no target is asked.
(function () {
  "use strict";
  const box = document.getElementById("hybrid-silence");
  const INTERVAL_MS = 10000;
  const ago = (s) => (s < 90 ? `${Math.round(s)} s` : `${Math.round(s / 60)} min`);

  async function look() {
    let targets = [];
    try {
      const answer = await fetch(box.dataset.url, { headers: { "X-XSRFToken": (window.jhdata || {}).xsrf_token || "" } });
      if (answer.ok) targets = await answer.json();
    } catch (error) {
      return; // the hub itself is away; the page says so where it matters
    }
    const silent = targets.filter((t) => t.silent_for !== null);
    box.textContent = silent
      .map((t) => `${t.title} has not answered for ${ago(t.silent_for)}. Sessions there go on and are kept; a new one may have to wait.`)
      .join(" ");
    box.hidden = silent.length === 0;
  }
  look();
  setInterval(() => { if (!document.hidden) look(); }, INTERVAL_MS);
})();
