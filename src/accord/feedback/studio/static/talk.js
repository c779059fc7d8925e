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
  for (const form of document.querySelectorAll(".talk form")) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) { event.preventDefault(); return; }
      form.dataset.sent = "1";
      if (form === say) {
        const busy = document.getElementById("busy");
        if (busy) busy.textContent = "The model is writing";
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
