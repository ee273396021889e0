// The spawn page: keeps fields in step with the chosen profile, and shows what each target offers now.
(function () {
  "use strict";
  const root = document.getElementById("hybrid");
  if (!root) return;
  const profiles = JSON.parse(root.dataset.profiles);
  const form = root.closest("form");
  const field = (name) => form.elements[name];
  const checked = (name) => (form.querySelector(`input[name="${name}"]:checked`) || {}).value;
  const REFRESH_MS = 8000;
  let lastRead = null;
  let request = 0;

  function followProfile(profileChanged) {
    const profile = profiles[checked("profile")];
    if (!profile) return;
    const environment = field("environment");
    for (const option of environment.options) {
      const offered = option.value in profile.environments;
      option.hidden = option.disabled = !offered;
    }
    if (environment.selectedOptions[0] && environment.selectedOptions[0].disabled) {
      environment.value = Object.keys(profile.environments)[0] || "";
    }
    if (profileChanged) {
      const runtime = field("runtime"), wanted = runtime.value;
      runtime.replaceChildren(...profile.runtimes.map((r) => new Option(r.label, r.value)));
      runtime.value = profile.runtimes.some((r) => r.value === wanted) ? wanted : profile.runtime;
    }
    const allowed = profile.environments[environment.value] || [];
    for (const row of root.querySelectorAll("[data-target]")) {
      const open = allowed.includes(row.dataset.target);
      row.hidden = !open;
      row.querySelector("input").disabled = !open;
      if (!open && row.querySelector("input").checked) root.querySelector('input[name="target"][value="auto"]').checked = true;
    }
  }

  async function refreshOffers() {
    const mine = ++request;
    const query = new URLSearchParams();
    for (const name of ["profile", "environment", "runtime", "account", "partition", "reservation"]) {
      const value = name === "profile" ? checked(name) : (field(name) || {}).value;
      if (value) query.set(name, value);
    }
    let answer, status = 0;
    try {
      const response = await fetch(`${root.dataset.offersUrl}?${query}`, {
        headers: { Accept: "application/json", "X-XSRFToken": (window.jhdata || {}).xsrf_token || "" },
      });
      status = response.status;
      answer = await response.json();
    } catch (error) {
      answer = { message: "The hub does not answer. Your choices are kept; this page tries again." };
    }
    if (mine !== request) return;
    const problem = document.getElementById("hybrid-problem");
    if (status !== 200) {
      problem.textContent = answer.message || "This choice cannot be started.";
      problem.hidden = false;
      return;
    }
    problem.hidden = true;
    lastRead = Date.now();
    document.getElementById("hybrid-reason").textContent = answer.reason;
    for (const row of root.querySelectorAll("[data-target]")) {
      const offer = answer.offers.find((o) => o.target === row.dataset.target);
      const badge = row.querySelector(".hybrid-offer");
      badge.textContent = offer ? offer.words : "not with these options";
      badge.dataset.fit = offer ? offer.fit : "never";
      row.classList.toggle("hybrid-unavailable", !offer);
      row.classList.toggle("hybrid-chosen", answer.chosen === row.dataset.target && checked("target") === "auto");
    }
    showAge();
  }

  function showAge() {
    if (lastRead === null) return;
    const seconds = Math.round((Date.now() - lastRead) / 1000);
    document.getElementById("hybrid-age").textContent =
      seconds < 3 ? "Read just now." : `Read ${seconds} s ago.`;
  }

  let typing;
  form.addEventListener("change", (event) => {
    followProfile(event.target.name === "profile");
    refreshOffers();
  });
  form.addEventListener("input", (event) => {
    if (event.target.type !== "text") return;
    clearTimeout(typing);
    typing = setTimeout(refreshOffers, 400);
  });
  followProfile(false);
  refreshOffers();
  setInterval(() => { if (!document.hidden) refreshOffers(); }, REFRESH_MS);
  setInterval(showAge, 1000);
})();
