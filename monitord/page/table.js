// A table whose rows open to details beneath them, and the buttons that turn its pages.
import { h } from "./element.js";
import { t } from "./words.js";

/** Make a row and the place beneath it. cells: elements; detail: called once, the first time the row is opened; label: of its button. */
export function opening(cells, button, detail) {
  const place = h("td", { class: "detail", colspan: cells.length }), under = h("tr", { hidden: true }, place);
  const row = h("tr", { class: "can" }, cells);
  const turn = () => {
    under.hidden = !under.hidden;
    row.classList.toggle("open", !under.hidden);
    button.setAttribute("aria-expanded", String(!under.hidden));
    if (!place.firstChild) place.append(detail());
  };
  button.setAttribute("aria-expanded", "false");
  row.addEventListener("click", (event) => { if (!event.target.closest("a, select, input, td button:not(.link)")) turn(); });
  return [row, under];
}

export function heads(...names) {
  return h("thead", {}, h("tr", {}, names.map((name) => Array.isArray(name) ? h("th", { scope: "col", class: name[1] }, name[0]) : h("th", { scope: "col" }, name))));
}

/** Buttons of a listing: turn is called with the page to show. */
export function pager(turn) {
  const newer = h("button", { type: "button", onclick: () => turn(page - 1) }, `‹ ${t("newer")}`), older = h("button", { type: "button", onclick: () => turn(page + 1) }, `${t("older")} ›`), place = h("span", {});
  let page = 1;
  const element = h("nav", { class: "bar under", "aria-label": t("page") }, place, newer, older);
  return {
    element,
    show(told) {
      page = told.page;
      const pages = Math.max(1, Math.ceil(told.total / told.page_size));
      place.textContent = `${t("page")} ${page} / ${pages}`;
      newer.disabled = page <= 1;
      older.disabled = page >= pages;
    },
  };
}
