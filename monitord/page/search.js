// Finding a symbol by code or name: a text field with a list below it, all of it by keyboard too.
import { h } from "./element.js";
import { ask } from "./gateway.js";
import { t } from "./words.js";

let next = 1;

/** A search field; found is called with each instrument that is taken. */
export function search(found) {
  const id = `found-${next++}`;
  const list = h("ul", { id, role: "listbox", "aria-label": t("add_label"), hidden: true });
  const input = h("input", { type: "search", role: "combobox", "aria-label": t("add_label"), placeholder: t("add"), autocomplete: "off", spellcheck: "false",
    "aria-expanded": "false", "aria-controls": id, "aria-autocomplete": "list", maxlength: 40 });
  const status = h("span", { class: "unseen", role: "status" });
  let instruments = [], at = -1, asked = 0;

  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    at = -1;
  };
  const point = (place) => {
    at = instruments.length ? (place + instruments.length) % instruments.length : -1;
    [...list.children].forEach((option, i) => option.setAttribute("aria-selected", String(i === at)));
    if (at < 0) return;
    input.setAttribute("aria-activedescendant", `${id}-${at}`);
    list.children[at].scrollIntoView({ block: "nearest" });
  };
  const take = (place) => {
    if (!instruments[place]) return;
    const one = instruments[place];
    input.value = "";
    close();
    found(one);
  };
  const show = () => {
    list.replaceChildren(...instruments.map((one, i) => h("li", { id: `${id}-${i}`, role: "option", "aria-selected": "false",
      onmousedown: (event) => { event.preventDefault(); take(i); } }, h("span", {}, one.name || one.symbol), h("span", { class: "code" }, one.symbol))));
    status.textContent = instruments.length ? "" : t("nothing_found");
    list.hidden = !instruments.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    point(0);
  };
  input.addEventListener("input", async () => {
    const mine = ++asked, words = input.value.trim();
    if (!words) return close();
    const told = await ask("v1/instruments", { query: { q: words, limit: 12 } }).catch(() => null);
    if (mine !== asked || !told) return;
    instruments = told.instruments;
    show();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") point(at + 1);
    else if (event.key === "ArrowUp") point(at - 1);
    else if (event.key === "Enter" && at >= 0) take(at);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
  input.addEventListener("blur", close);
  return h("div", { class: "search" }, input, list, status);
}
