// The spawn page: keeps fields in step with the chosen profile, and shows what each target offers now.
(function () {
  "use strict";
  const root = document.getElementById("hybrid");
  if (!root) return;
  const profiles = JSON.parse(root.dataset.profiles);
  const form = root.closest("form");
  const field = (name) => form.elements[name];
  const checked = (name) => (form.querySelector(`input[name="${name}"]:checked`) || {}).value;
  const slurm = JSON.parse(root.dataset.slurm);
  const rows = () => root.querySelectorAll("[data-target]");
  const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const REFRESH_MS = 8000;
  let request = 0, answered = 0;

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
    for (const row of rows()) {
      const open = allowed.includes(row.dataset.target);
      row.hidden = !open;
      row.querySelector("input").disabled = !open;
      if (!open && row.querySelector("input").checked) root.querySelector('input[name="target"][value="auto"]').checked = true;
    }
    // what only Slurm has is neither shown nor sent where no Slurm target can be meant
    const target = checked("target");
    const meant = target === "auto" ? allowed.some((name) => slurm.includes(name)) : slurm.includes(target);
    for (const label of root.querySelectorAll("[data-slurm-field]")) {
      label.hidden = !meant;
      label.querySelector("input").disabled = !meant;
    }
  }

  async function refreshOffers() {
    const mine = ++request;
    const query = new URLSearchParams();
    for (const name of ["profile", "environment", "runtime", "account", "partition", "reservation"]) {
      const input = name === "profile" ? { value: checked(name) } : field(name) || {};
      const value = input.disabled ? "" : input.value;
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
    answered = mine;
    const problem = document.getElementById("hybrid-problem");
    if (status !== 200) {
      problem.textContent = answer.message || "This choice cannot be started.";
      problem.hidden = false;
      return;
    }
    problem.hidden = true;
    say(document.getElementById("hybrid-reason"), answer.reason);
    for (const row of rows()) showOffer(row, answer.offers.find((o) => o.target === row.dataset.target), answer.chosen);
    showChoices(answer.offers);
    showAges();
  }

  function showOffer(row, offer, chosen) {
    const [first, ...rest] = offer ? offer.words.split("; ") : ["not with these options"];
    const badge = row.querySelector(".hybrid-offer");
    say(badge, first);
    badge.dataset.fit = offer ? offer.fit : "never";
    say(row.querySelector(".hybrid-more"), rest.join("; "));
    say(row.querySelector(".hybrid-note"), (offer && offer.note) || "");
    row.classList.toggle("hybrid-unavailable", !offer);
    row.classList.toggle("hybrid-chosen", chosen === row.dataset.target && checked("target") === "auto");
    const read = (age) => (offer && offer[age] !== null ? Date.now() - offer[age] * 1000 : "");
    row.dataset.read = read("age");
    row.dataset.estimated = read("estimate_age");
  }

  // What the user may choose on the targets that can be meant: suggestions of the fields, and said beneath them.
  function showChoices(offers) {
    const meant = offers.filter((o) => checked("target") === "auto" || checked("target") === o.target);
    const values = (name) => [...new Set(meant.flatMap((o) => o.choices[name] || []))].sort();
    for (const name of ["account", "partition", "reservation"]) {
      const list = document.getElementById(`hybrid-${name}s`), help = document.getElementById(`hybrid-${name}-help`);
      if (!list) continue;
      const known = values(name);
      if ([...list.options].map((o) => o.value).join("|") !== known.join("|")) {
        list.replaceChildren(...known.map((value) => Object.assign(document.createElement("option"), { value })));
      }
      const some = known.slice(0, 8).join(", ") + (known.length > 8 ? ", \u2026" : "");
      const none = meant.some((o) => o.choices[name] && !o.choices[name].length);
      say(help, help.dataset.help + (some ? `. Yours: ${some}` : none ? ". You have none" : ""));
    }
    const qos = values("qos"), line = document.getElementById("hybrid-qos");
    say(line, qos.length ? `Qualities of service open to you: ${qos.join(", ")}.` : "");
    line.hidden = !qos.length;
  }

  function showAges() {
    for (const row of rows()) {
      const ago = (at) => {
        const seconds = Math.max(0, Math.round((Date.now() - at) / 1000));
        return seconds < 3 ? "just now" : `${seconds} s ago`;
      };
      const words = row.dataset.read ? [`read ${ago(row.dataset.read)}`] : [];
      if (row.dataset.estimated) words.push(`estimated ${ago(row.dataset.estimated)}`);
      say(row.querySelector(".hybrid-age"), words.join(", "));
    }
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
  // a question that is still open is not asked again: its answer would be thrown away
  setInterval(() => { if (!document.hidden && answered === request) refreshOffers(); }, REFRESH_MS);
  setInterval(showAges, 1000);
})();
