// Small things of every page. Everything works without this file too.
"use strict";

// A refused or failed htmx request says so where people look, instead of doing nothing.
document.addEventListener("htmx:responseError", (event) => {
  const line = document.createElement("p");
  line.className = "notice bad";
  line.setAttribute("role", "alert");
  line.textContent = event.detail.xhr.status === 401 ? "You are logged out. Log in in another tab, then try again." : "That was not accepted; nothing was changed. Load the page again.";
  document.querySelector("main").prepend(line);
});

// ? opens the list of keys on every page, unless single keys are switched off.
document.addEventListener("keydown", (event) => {
  if (event.key !== "?" || document.documentElement.dataset.keys === "off") return;
  if (event.target.closest("textarea, select, input:not([type=radio], [type=checkbox])")) return;
  const dialog = document.getElementById("keys");
  if (dialog) dialog.open ? dialog.close() : dialog.showModal();
  else window.location.href = "/help/keys";
});

// The ? of the top bar opens the same list; a link where a page has none.
document.addEventListener("click", (event) => {
  const dialog = document.getElementById("keys");
  if (!dialog || !event.target.closest("[data-help]")) return;
  event.preventDefault();
  if (!dialog.open) dialog.showModal();
});

// Copy an invitation, where the browser lets us.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button || !navigator.clipboard) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  button.textContent = "Copied";
});
