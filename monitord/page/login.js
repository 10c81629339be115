// Asking for the token where the gateway wants one. It stays in this tab.
import { h } from "./element.js";
import { keepToken, token } from "./gateway.js";
import { t } from "./words.js";

let dialog = null;

/** Ask for a token; entered is called once there is one. wasKnown: there was one, and it is no good. */
export function login(entered, wasKnown) {
  if (dialog) return;
  if (wasKnown) keepToken(null);
  const input = h("input", { type: "password", autocomplete: "off", required: true, "aria-label": t("token"), placeholder: t("token") });
  const form = h("form", { onsubmit: (event) => {
    event.preventDefault();
    keepToken(input.value.trim());
    close();
    entered();
  } }, h("h2", { id: "login-title" }, t("token_title")), wasKnown ? h("p", { class: "bad", role: "alert" }, t("token_bad")) : null, input, h("p", { class: "dim" }, t("token_why")), h("button", { type: "submit", class: "main" }, t("token_enter")));
  dialog = h("dialog", { "aria-labelledby": "login-title" }, form);
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  document.body.append(dialog);
  dialog.showModal();
  input.focus();
}

function close() {
  dialog.close();
  dialog.remove();
  dialog = null;
}

export const isKnown = () => token() !== null;
