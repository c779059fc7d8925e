// The task page: drafts, keys, dragging, submission. The radio buttons and fields of the form are the only truth; the
// strip, the letters and the live region show what they say. Without this file the form works as it stands.
"use strict";
(() => {
  const form = document.getElementById("task");
  const kind = form.dataset.kind;
  const cards = [...form.querySelectorAll(".response")];
  const live = document.getElementById("live");
  const saved = document.getElementById("saved");
  const trouble = document.getElementById("trouble");
  const strip = document.getElementById("strip");
  const store = `accord-draft-${form.dataset.assignment}-${form.elements.revision.value}`;
  const singleKeys = document.documentElement.dataset.keys !== "off";
  const reduced = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  let version = Number(form.dataset.version);
  const spans = document.getElementById("spans");
  const hidden = (name, value) => { const one = document.createElement("input"); one.type = "hidden"; one.name = name; one.value = value; return one; };
  const describes = "describes" in form.dataset; // each response is described first, then all are ranked
  const describing = () => form.dataset.step === "describe";
  let current = -1;
  let scale = null; // the scale whose digit comes next
  document.documentElement.classList.add("js");

  const say = (text) => { live.textContent = text; };
  const complain = (text) => { trouble.textContent = text; trouble.hidden = !text; if (text) { showTab("form"); trouble.scrollIntoView({ block: "nearest" }); } };
  const radios = (name) => [...form.elements].filter((one) => one.name === name && one.type === "radio");
  const chosen = (name) => radios(name).find((one) => one.checked)?.value ?? "";
  const changed = () => { refresh(); touched(); };
  const choose = (name, value) => {
    for (const one of radios(name)) one.checked = one.value === value;
    changed();
  };

  // Time spent here, by the browser's own steady clock, without the time the page was hidden or left alone.
  let active = 0;
  let since = performance.now();
  const IDLE = 60_000;
  const count = () => { const now = performance.now(); active += Math.min(now - since, document.hidden ? 0 : IDLE); since = now; };
  for (const what of ["pointerdown", "keydown", "scroll", "visibilitychange"]) document.addEventListener(what, count, { passive: true });

  // --- Drafts -------------------------------------------------------------------------------------------------------
  const fields = () => {
    const found = {};
    for (const [name, value] of new FormData(form)) if (!["csrf", "revision", "active_ms"].includes(name) && value) found[name] = value;
    return found;
  };
  const fill = (values) => {
    spans?.replaceChildren(...Object.entries(values).filter(([name]) => name.startsWith("span.")).map(([name, value]) => hidden(name, value)));
    for (const one of form.elements) {
      if (!one.name || ["csrf", "revision", "active_ms"].includes(one.name)) continue;
      if (one.type === "radio" || one.type === "checkbox") one.checked = values[one.name] === one.value;
      else if ("value" in one && one.tagName !== "BUTTON") one.value = values[one.name] ?? "";
    }
    refresh();
  };
  const body = (values) => {
    const data = new FormData();
    data.set("csrf", document.body.dataset.csrf);
    data.set("version", String(version));
    for (const [name, value] of Object.entries(values)) data.set(name, value);
    return data;
  };
  const address = `/t/${form.dataset.assignment}/draft`;
  let timer = null;
  let saving = null;
  let dirty = false;
  let sent = false;
  const clock = () => new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const touched = () => {
    dirty = true;
    try { sessionStorage.setItem(store, JSON.stringify(fields())); } catch { /* private windows may refuse */ }
    clearTimeout(timer);
    timer = setTimeout(save, 800);
  };
  const save = async () => {
    if (saving) await saving;
    if (!dirty || sent) return;
    dirty = false;
    const values = fields();
    saving = fetch(address, { method: "POST", body: body(values), headers: { Accept: "application/json" } })
      .then(async (answer) => {
        if (answer.ok) { version = (await answer.json()).version; saved.textContent = `Draft saved at ${clock()}`; form.dataset.draft = "1"; }
        else if (answer.status === 409) settle(values, await answer.json());
        else { dirty = true; saved.textContent = answer.status === 401 ? "You are logged out: log in in another tab; this page keeps what you typed" : "The draft could not be saved; trying again"; timer = setTimeout(save, 5000); }
      })
      .catch(() => { dirty = true; saved.textContent = "No connection: kept in this browser, trying again"; timer = setTimeout(save, 3000); })
      .finally(() => { saving = null; });
    await saving;
  };
  const settle = (mine, theirs) => {
    if (JSON.stringify(mine) === JSON.stringify(theirs.fields)) { version = theirs.version; return; }
    const dialog = document.getElementById("conflict");
    dialog.querySelector(".versions").textContent = "";
    for (const [title, values] of [["In this tab", mine], ["In the other tab", theirs.fields]]) {
      const box = document.createElement("section");
      const head = document.createElement("h3");
      const text = document.createElement("p");
      head.textContent = title;
      text.textContent = describe(values);
      box.append(head, text);
      dialog.querySelector(".versions").append(box);
    }
    dialog.onclick = (event) => {
      const choice = event.target.closest("[data-choose]")?.dataset.choose;
      if (!choice) return;
      version = theirs.version;
      if (choice === "theirs") { fill(theirs.fields); dirty = false; saved.textContent = "The other tab's version"; } else touched();
      dialog.close();
    };
    if (!dialog.open) dialog.showModal();
  };
  const letterOf = (id) => cards.find((card) => card.dataset.response === id)?.dataset.letter ?? id;
  const describe = (values) => Object.entries(values).map(([name, value]) => {
    if (name.startsWith("span.")) return `marked: ${value.split(":").slice(3).join(":")} in ${letterOf(value.split(":")[0])}`;
    const words = name.startsWith("rank.") ? letterOf(name.slice(5)) : name.includes(".") ? name.split(".").pop() : name;
    return `${words}: ${letterOf(value)}`;
  }).join(" · ") || "nothing";
  document.addEventListener("visibilitychange", () => { if (document.hidden) leave(); });
  const leave = () => { if (dirty && !sent && !saving) { dirty = false; if (navigator.sendBeacon(address, body(fields()))) version += 1; else dirty = true; } };
  window.addEventListener("pagehide", leave);
  // Back from the cache of the back button: the page may be older than what is kept.
  window.addEventListener("pageshow", (event) => { if (event.persisted) window.location.reload(); });
  // What could not be sent before this page was left is still in the browser.
  try {
    const local = JSON.parse(sessionStorage.getItem(store) ?? "null");
    if (local && !form.dataset.draft && JSON.stringify(local) !== JSON.stringify(fields())) { fill(local); saved.textContent = "Restored from this browser"; dirty = true; timer = setTimeout(save, 800); }
  } catch { /* nothing kept */ }
  form.addEventListener("input", changed);

  // --- Submission ---------------------------------------------------------------------------------------------------
  const button = document.getElementById("submit");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (sent) return;
    const lacking = missing();
    if (lacking) { complain(lacking); return; }
    if (describing()) { step("rank"); return; }
    sent = true;
    button.setAttribute("aria-disabled", "true");
    clearTimeout(timer);
    if (saving) await saving;
    count();
    form.elements.active_ms.value = String(Math.round(active));
    try {
      const answer = await fetch(form.action, { method: "POST", body: new FormData(form), headers: { Accept: "application/json" } });
      const said = await answer.json();
      if (answer.ok) { sessionStorage.removeItem(store); window.location.assign(said.next); return; }
      complain(said.error ?? said.detail);
    } catch { complain("There is no connection. What you chose is kept in this browser; submit again when you are back."); }
    sent = false;
    button.removeAttribute("aria-disabled");
  });
  const missing = () => {
    if (describing()) {
      const names = (card) => [...new Set([...card.querySelectorAll(".describe input[type=radio]")].map((one) => one.name))];
      const open = cards.filter((card) => names(card).some((name) => !chosen(name))).map((card) => card.dataset.letter);
      return open.length ? `Still to be described: ${open.join(", ")}.` : "";
    }
    if (kind === "rank") {
      const open = cards.filter((card) => !chosen(`rank.${card.dataset.response}`)).map((card) => card.dataset.letter);
      return open.length ? `Still to be placed: ${open.join(", ")}.` : "";
    }
    if (kind === "pairwise" && !chosen("choice")) return "Choose A, B, a tie or both failed.";
    return "";
  };

  // The prompt stays in sight beside long responses; what scrolls must not end up below it.
  const prompt = document.getElementById("part-prompt");
  new ResizeObserver(() => form.style.setProperty("--prompt", `${prompt.offsetHeight}px`)).observe(prompt);

  // --- Responses ----------------------------------------------------------------------------------------------------
  const focusOn = (index) => {
    if (!cards.length) return;
    current = (index + cards.length) % cards.length;
    showTab("responses");
    cards.forEach((card, place) => card.classList.toggle("current", place === current));
    cards[current].focus({ preventScroll: true });
    cards[current].scrollIntoView({ block: "nearest", behavior: reduced ? "auto" : "smooth" });
  };
  cards.forEach((card, index) => card.addEventListener("focusin", () => { current = index; cards.forEach((one, place) => one.classList.toggle("current", place === index)); }));
  for (const card of cards) {
    const text = card.querySelector(".text");
    const more = card.querySelector("[data-more]");
    if (text.scrollHeight > text.clientHeight + 4) { more.hidden = false; text.classList.add("cut"); }
    more.addEventListener("click", () => expand(card));
  }
  const expand = (card) => {
    const open = card.classList.toggle("open");
    card.querySelector("[data-more]").textContent = open ? "Show less" : "Show all";
  };

  // --- Ranking ------------------------------------------------------------------------------------------------------
  const placeOf = (card) => chosen(`rank.${card.dataset.response}`);
  const put = (card, place) => {
    choose(`rank.${card.dataset.response}`, place);
    const tied = cards.filter((one) => one !== card && place && placeOf(one) === place).map((one) => one.dataset.letter);
    const where = place === "F" ? "failed" : place ? `rank ${place} of ${cards.length}` : "not placed";
    say(`Response ${card.dataset.letter}, ${where}${tied.length && place !== "F" ? `, tied with ${tied.join(", ")}` : ""}`);
  };
  const move = (card, step) => {
    const order = [...Array(cards.length).keys()].map((n) => String(n + 1)).concat("F");
    const at = order.indexOf(placeOf(card));
    const next = at < 0 ? (step > 0 ? 0 : order.length - 2) : Math.min(Math.max(at + step, 0), order.length - 1);
    put(card, order[next]);
  };
  const chips = new Map();
  if (strip) {
    strip.hidden = false;
    for (const card of cards) {
      const chip = document.createElement("li");
      chip.className = "chip";
      chip.dataset.response = card.dataset.response;
      const make = (text, label, act) => {
        const one = document.createElement("button");
        one.type = "button";
        one.textContent = text;
        one.setAttribute("aria-label", label);
        one.addEventListener("click", act);
        return one;
      };
      const letter = card.dataset.letter;
      const name = make(letter, `Response ${letter}: go to it`, () => focusOn(cards.indexOf(card)));
      name.className = "chip-name";
      const keep = (act) => (event) => { act(); event.target.focus(); };
      chip.append(name, make("▲", `Response ${letter} up`, keep(() => move(card, -1))), make("▼", `Response ${letter} down`, keep(() => move(card, 1))));
      chips.set(card.dataset.response, chip);
    }
    for (const list of strip.querySelectorAll(".chips")) {
      window.Sortable?.create(list, {
        group: "chips", sort: false, animation: reduced ? 0 : 120, delay: 80, delayOnTouchOnly: true, filter: "button:not(.chip-name)", preventOnFilter: false,
        onEnd: (event) => put(cards.find((card) => card.dataset.response === event.item.dataset.response), event.to.dataset.place),
      });
    }
  }
  const refresh = () => {
    drawMarks();
    for (const card of cards) {
      const place = kind === "rank" ? placeOf(card) : "";
      const state = card.querySelector("[data-state]");
      if (kind === "rank") {
        const tied = place && place !== "F" && cards.some((one) => one !== card && placeOf(one) === place);
        state.textContent = place === "F" ? "failed" : place ? `place ${place}${tied ? ", tied" : ""}` : "";
        const list = strip?.querySelector(`.chips[data-place="${place}"]`);
        if (list && chips.get(card.dataset.response).parentNode !== list) list.append(chips.get(card.dataset.response));
        card.classList.toggle("failed", place === "F");
      } else if (kind === "pairwise") {
        const better = chosen("choice") === card.dataset.response;
        state.textContent = better ? "better" : chosen("choice") === "failed" ? "failed" : "";
        card.classList.toggle("best", better);
      }
    }
    if (kind === "pairwise") for (const one of radios("strength")) { one.disabled = ["", "tie", "failed"].includes(chosen("choice")); if (one.disabled) one.checked = false; }
    if (!trouble.hidden && !missing()) complain("");
    button.classList.toggle("waiting", Boolean(missing()));
  };

  // --- Two steps: describe each response, then rank all -----------------------------------------------------------------
  const step = (name) => {
    form.dataset.step = name;
    button.firstChild.textContent = name === "describe" ? "Next: rank" : "Submit";
    tabs.querySelector('[data-tab="form"]').hidden = name === "describe";
    complain("");
    showTab(name === "describe" ? "prompt" : "responses");
    refresh();
    window.scrollTo(0, 0);
    say(name === "describe" ? "Describe each response" : "Now rank the responses");
  };
  form.querySelector("[data-step]")?.addEventListener("click", () => step("describe"));

  // --- Marked passages: kept as RESPONSE:START:END:TAG, in characters of the text as it came ----------------------------
  const source = (card) => JSON.parse(card.dataset.source);
  const placeIn = (text, at) => { // from a place in a text field, where a line ends with one character and an emoji is two
    let points = 0;
    for (let shown = 0, i = 0; shown < at && i < text.length;) {
      const line = text.startsWith("\r\n", i);
      const size = line || text.codePointAt(i) > 0xffff ? 2 : 1;
      points += line ? 2 : 1;
      shown += line ? 1 : size;
      i += size;
    }
    return points;
  };
  const drawMarks = () => {
    if (!spans) return;
    for (const card of cards) {
      const letters = [...source(card)];
      const rows = [...spans.children].filter((one) => one.value.startsWith(`${card.dataset.response}:`)).map((one) => {
        const [, start, end, ...tag] = one.value.split(":");
        const row = document.createElement("li");
        const words = document.createElement("q");
        const what = document.createElement("span");
        const remove = document.createElement("button");
        const passage = letters.slice(Number(start), Number(end)).join("").trim();
        words.textContent = passage.length > 60 ? `${passage.slice(0, 59)}…` : passage;
        what.className = "badge";
        what.textContent = tag.join(":");
        remove.type = "button";
        remove.className = "quiet";
        remove.textContent = "Remove";
        remove.setAttribute("aria-label", `Remove the mark “${tag.join(":")}” from ${words.textContent}`);
        remove.addEventListener("click", () => { one.remove(); drawMarks(); changed(); card.querySelector("[data-mark]").focus(); });
        row.append(words, what, remove);
        return row;
      });
      card.querySelector(".marks").hidden = false;
      card.querySelector(".marks ul").replaceChildren(...rows);
    }
  };
  const marking = document.getElementById("mark");
  const markIn = (card) => {
    if (!marking || !card || describing()) return;
    const area = document.getElementById("mark-text");
    const selected = String(document.getSelection()).trim();
    marking.dataset.response = card.dataset.response;
    marking.querySelector("h2").textContent = `Mark a passage of response ${card.dataset.letter}`;
    marking.querySelector("[data-marked]").textContent = "";
    area.value = source(card);
    marking.showModal();
    area.focus();
    const at = selected ? area.value.indexOf(selected) : -1; // what was selected on the page, where it stands in the text
    area.setSelectionRange(Math.max(at, 0), at < 0 ? 0 : at + selected.length);
  };
  // A text field that nothing can be typed into: one that is read-only has no cursor to select with by keyboard.
  document.getElementById("mark-text")?.addEventListener("beforeinput", (event) => event.preventDefault());
  for (const card of cards) card.querySelector("[data-mark]")?.addEventListener("click", () => markIn(card));
  marking?.addEventListener("click", (event) => {
    const tag = event.target.closest("[data-tag]")?.dataset.tag;
    if (!tag) return;
    const area = document.getElementById("mark-text");
    const card = cards.find((one) => one.dataset.response === marking.dataset.response);
    const told = marking.querySelector("[data-marked]");
    if (area.selectionStart === area.selectionEnd) { told.textContent = "Select a passage first."; return; }
    const [start, end] = [area.selectionStart, area.selectionEnd].map((at) => placeIn(source(card), at));
    const value = `${card.dataset.response}:${start}:${end}:${tag}`;
    const next = Math.max(-1, ...[...spans.children].map((one) => Number(one.name.slice(5)) || 0)) + 1;
    if (![...spans.children].some((one) => one.value === value)) spans.append(hidden(`span.${next}`, value));
    told.textContent = `Marked: ${tag}`;
    drawMarks();
    changed();
  });

  // --- Differences, dialogs, tabs -----------------------------------------------------------------------------------
  const words = (card) => card.querySelector(".text").innerText.split(/(\s+)/).filter(Boolean).slice(0, 1600);
  const difference = (a, b) => {
    const rows = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) rows[i][j] = a[i] === b[j] ? rows[i + 1][j + 1] + 1 : Math.max(rows[i + 1][j], rows[i][j + 1]);
    const out = document.createDocumentFragment();
    const add = (tag, text) => { const last = out.lastChild; if (last?.nodeName === tag.toUpperCase()) last.textContent += text; else { const one = document.createElement(tag); one.textContent = text; out.append(one); } };
    let i = 0; let j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) { add("span", a[i]); i++; j++; }
      else if (j < b.length && (i === a.length || rows[i][j + 1] >= rows[i + 1][j])) add("ins", b[j++]);
      else add("del", a[i++]);
    }
    return out;
  };
  const compare = () => {
    if (cards.length < 2) return;
    const one = cards[Math.max(current, 0)];
    const rank = (card) => ({ "": 98, F: 99 })[placeOf(card)] ?? Number(placeOf(card));
    const others = cards.filter((card) => card !== one);
    const other = kind === "rank" ? others.reduce((best, card) => (rank(card) < rank(best) ? card : best)) : others[0];
    const dialog = document.getElementById("difference");
    dialog.querySelector("h2").textContent = `From ${other.dataset.letter} to ${one.dataset.letter}`;
    dialog.querySelector("[data-difference]").replaceChildren(difference(words(other), words(one)));
    dialog.showModal();
  };
  const open = (name) => { const dialog = document.getElementById(name); if (!dialog.open) dialog.showModal(); };
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open]");
    if (opener) open(opener.dataset.open);
    const guide = event.target.closest("[data-guide]");
    if (guide) { event.preventDefault(); showGuide(guide.dataset.guide); }
    if (event.target.closest("[data-close]") || event.target.tagName === "DIALOG") event.target.closest("dialog").close();
  });
  const search = document.querySelector("[data-find]");
  const find = (words) => { for (const block of document.querySelectorAll("[data-found] > *")) block.hidden = Boolean(words) && !block.textContent.toLowerCase().includes(words); };
  search.addEventListener("input", () => find(search.value.trim().toLowerCase()));
  // A label's help leads to the heading of its name in the guideline.
  const showGuide = (id) => {
    search.value = "";
    find("");
    open("guideline");
    const place = document.getElementById(id);
    place.tabIndex = -1;
    place.focus({ preventScroll: true });
    place.scrollIntoView({ block: "start" });
  };
  const tabs = document.querySelector(".tabs");
  tabs.hidden = false;
  const showTab = (name) => {
    if (!tabs.querySelector(`[data-tab="${name}"]`)) return;
    form.dataset.tab = name;
    for (const tab of tabs.children) tab.setAttribute("aria-selected", String(tab.dataset.tab === name));
  };
  tabs.addEventListener("click", (event) => { const tab = event.target.closest("[data-tab]"); if (tab) { showTab(tab.dataset.tab); window.scrollTo(0, 0); } });
  showTab("prompt");

  // Pasting is allowed; how much of a text was pasted at once is told to whoever reads the evidence.
  const pasted = form.querySelector("[name=pasted]");
  document.getElementById("text")?.addEventListener("paste", (event) => {
    const length = event.clipboardData?.getData("text/plain").length ?? 0;
    if (length > 200) pasted.value = String(Number(pasted.value) + length);
  });

  // Esc leaves a field, so that single keys act again.
  for (const area of form.querySelectorAll("textarea")) area.addEventListener("keydown", (event) => { if (event.key === "Escape") area.blur(); });

  // --- Keys ---------------------------------------------------------------------------------------------------------
  const press = (input) => { input.checked = input.type === "checkbox" ? !input.checked : true; changed(); say(`${input.closest("label").innerText.split("\n")[0]}${input.type === "checkbox" ? (input.checked ? " on" : " off") : ""}`); };
  const cycle = (inputs) => { const at = inputs.findIndex((one) => one.checked); press(inputs[(at + 1) % inputs.length]); };
  const here = () => (cards.length > 1 && (kind === "attributes" || describing()) ? cards[Math.max(current, 0)] : form);
  const inside = (selector) => [...here().querySelectorAll(selector)].filter((one) => describing() || !one.closest(".describe"));
  const digit = (key) => {
    if (scale) { const one = inside(`[data-scale="${scale}"]`).find((input) => input.value === key); scale = null; if (one) press(one); return Boolean(one); }
    const direct = inside(`[data-digit="${key}"]`)[0];
    if (direct) { press(direct); return true; }
    if (kind === "rank" && !describing() && current >= 0 && Number(key) >= 1 && Number(key) <= cards.length) { put(cards[current], key); return true; }
    return false;
  };
  const letters = {
    j: () => focusOn(current + 1), ArrowDown: () => focusOn(current + 1), k: () => focusOn(current < 0 ? cards.length - 1 : current - 1), ArrowUp: () => focusOn(current < 0 ? cards.length - 1 : current - 1),
    e: () => cards[current] && expand(cards[current]), d: compare, g: () => open("guideline"), s: () => open("skip"),
    r: () => { showTab("form"); document.querySelector("[data-reason]")?.focus(); },
    "[": () => document.querySelector('[data-go="earlier"]')?.click(), "]": () => document.querySelector('[data-go="later"]')?.click(),
  };
  if (kind === "demonstrate") letters.x = () => document.querySelector("[data-examples]").click();
  if (kind === "rank") Object.assign(letters, { m: () => markIn(cards[Math.max(current, 0)]), f: () => cards[current] && put(cards[current], placeOf(cards[current]) === "F" ? "" : "F"), u: () => cards[current] && put(cards[current], "") });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); if (!document.querySelector("dialog[open]")) form.requestSubmit(); return; }
    const typing = event.target.closest("textarea, select, input:not([type=radio], [type=checkbox])");
    if (!singleKeys || typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (/^[0-9]$/.test(key) && digit(key)) { event.preventDefault(); return; }
    if (kind === "pairwise" && key === "0") { inside('[data-key="t"]').forEach(press); return; }
    const scales = inside(`[data-scale="${CSS.escape(key)}"]`);
    const flags = inside(`[data-key="${CSS.escape(key)}"]`);
    const choices = inside(`[data-cycle="${CSS.escape(key)}"]`);
    if (scales.length) { scale = key; scales[0].focus(); say("Now a digit"); }
    else if (flags.length) press(flags[0]);
    else if (choices.length) cycle(choices);
    else if (Object.hasOwn(letters, key)) letters[key]();
    else return;
    event.preventDefault();
  });
  if (describes) { form.dataset.step = "describe"; step(missing() ? "describe" : "rank"); }
  refresh();
})();
