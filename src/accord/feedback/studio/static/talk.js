// A conversation: keys, what is typed survives a reload, and the page says that the model is writing.
"use strict";
(() => {
  const say = document.getElementById("say");
  const text = document.getElementById("text");
  document.querySelector(".talk-lines > :last-child")?.scrollIntoView({ block: "nearest" });
  if (text) {
    const name = text.dataset.keep;
    try { text.value ||= sessionStorage.getItem(name) ?? ""; } catch { /* private windows may refuse */ }
    text.addEventListener("input", () => { try { sessionStorage.setItem(name, text.value); } catch { /* likewise */ } });
    text.focus();
  }
  const busy = document.getElementById("busy");
  const tell = (words) => { if (busy) busy.textContent = words; };

  // A reply is shown while it comes: a line with plain text, and once it is whole the page with its markdown. Two
  // candidates come in step, two cards beside each other: the server sees to it that neither is ahead.
  const addLine = (role, words) => {
    const line = document.createElement("article");
    line.className = `line ${role}`;
    const said = document.createElement("div");
    said.className = "text writing";
    said.dir = "auto";
    said.textContent = words;
    line.append(said);
    document.querySelector(".talk-lines .empty")?.remove();
    document.querySelector(".talk-lines").append(line);
    line.scrollIntoView({ block: "nearest" });
    return said;
  };
  const addPair = () => {
    const pair = document.createElement("div");
    pair.className = "responses n2";
    const texts = ["A", "B"].map((letter) => {
      const card = document.createElement("article");
      card.className = "response card";
      const head = document.createElement("header");
      const name = document.createElement("h2");
      name.textContent = `Reply ${letter}`;
      head.append(name);
      const said = document.createElement("div");
      said.className = "text writing";
      said.dir = "auto";
      card.append(head, said);
      pair.append(card);
      return said;
    });
    document.querySelector(".talk-lines .empty")?.remove();
    document.querySelector(".talk-lines").append(pair);
    return texts;
  };
  const stopButton = (line) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Stop";
    button.addEventListener("click", () => {
      button.disabled = true;
      fetch(say.dataset.stop, { method: "POST", body: new URLSearchParams({ csrf: document.body.dataset.csrf }), redirect: "manual" });
    });
    button.className = "stop";
    line.after(button);
    return button;
  };
  async function* eventsOf(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").find((row) => row.startsWith("data: "));
        if (data) yield { done: part.startsWith("event: done"), ...JSON.parse(data.slice(6)) };
      }
    }
  }
  const watch = async () => {
    const words = text?.value ?? "";
    const response = await fetch(say.dataset.stream, { method: "POST", body: new FormData(say), headers: { Accept: "text/event-stream, application/json" } });
    if (!response.ok) throw new Error((await response.json()).detail);
    if (words) addLine("user", words);
    if (text) { text.value = ""; try { sessionStorage.removeItem(text.dataset.keep); } catch { /* private windows may refuse */ } }
    const texts = say.hasAttribute("data-two") ? addPair() : [addLine("assistant", "")];
    const shown = say.hasAttribute("data-two") ? texts[0].closest(".responses") : texts[0].parentElement;
    const stop = stopButton(texts.length > 1 ? shown : texts[0]);
    for await (const event of eventsOf(response)) {
      if (event.error) { stop.remove(); shown.remove(); throw new Error(event.error); }
      if (event.done) break;
      [event.text ?? event.add].flat().forEach((part, side) => {
        texts[side].textContent = (event.text === undefined ? texts[side].textContent : "") + part;
      });
      stop.scrollIntoView({ block: "nearest" });
    }
    window.location.replace(window.location.pathname);
  };
  const talk = async () => {
    const send = say.querySelector("button");
    send.disabled = true;
    if (text) text.readOnly = true;
    tell(say.hasAttribute("data-two") ? "Two replies are on their way" : "The model is writing");
    try { await watch(); } catch (error) {
      tell(error instanceof TypeError ? "The connection is gone; what you wrote is kept. Load the page again." : error.message);
      send.disabled = false;
      if (text) text.readOnly = false;
    }
  };
  if (say?.dataset.stream && window.TextDecoderStream && new URLSearchParams(window.location.search).has("again")) talk();

  for (const form of document.querySelectorAll(".talk form")) {
    form.addEventListener("submit", (event) => {
      if (form === say && say.dataset.stream && window.TextDecoderStream) { event.preventDefault(); if (!say.querySelector("button").disabled) talk(); return; }
      if (form.dataset.sent) { event.preventDefault(); return; }
      form.dataset.sent = "1";
      if (form === say) {
        tell("The model is writing");
        if (text) { text.readOnly = true; try { sessionStorage.removeItem(text.dataset.keep); } catch { /* likewise */ } }
      }
    });
  }
  // The page may come back from the cache of the back button.
  window.addEventListener("pageshow", (event) => { if (event.persisted) window.location.reload(); });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && say) { event.preventDefault(); say.requestSubmit(); return; }
    if (document.documentElement.dataset.keys === "off" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("textarea, input, select")) return;
    document.querySelector(`#pick [data-key="${CSS.escape(event.key.toLowerCase())}"]`)?.click();
  });
})();
