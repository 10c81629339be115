// Alerts as they fire, beside the board. A list that readers of the screen can walk; what is new is told to them apart, not too often.
import { h } from "./element.js";
import { clock } from "./format.js";
import { count, known, ledger } from "./ledger.js";
import { add, isWatched } from "./watchlist.js";
import { why } from "./why.js";
import { named, t } from "./words.js";

const SHOWN = 200, TOLD_EVERY_MS = 2500;
let words = "", onlyWatched = false;
const opened = new Set();

const who = (alert) => alert.name || alert.symbol || alert.group || alert.rule;

function matches(alert) {
  if (onlyWatched && !isWatched(alert.symbol)) return false;
  if (!words) return true;
  return [alert.symbol, alert.name, alert.group, alert.rule, alert.message, alert.event, named("e", alert.event)].some((text) => text?.toLowerCase().includes(words));
}

function row(alert, fresh) {
  const place = h("div", { hidden: true });
  const button = h("button", { type: "button", "aria-expanded": "false" },
    h("time", { class: "when", datetime: alert.event_ts }, clock(alert.ts_event_ms)),
    h("span", { class: "who" }, h("span", {}, who(alert)), alert.name ? h("span", { class: "code" }, alert.symbol) : null,
      h("span", { class: `tag ${alert.event}` }, named("e", alert.event))),
    h("span", { class: "rule", title: alert.rule }, alert.rule),
    h("span", { class: "what" }, alert.message || alert.why || ""));
  const open = (isOpen) => {
    button.setAttribute("aria-expanded", String(isOpen));
    place.hidden = !isOpen;
    if (isOpen) opened.add(alert.id); else opened.delete(alert.id);
    if (isOpen && !place.firstChild) {
      const canWatch = alert.symbol && !isWatched(alert.symbol);
      place.append(why(alert, canWatch ? h("div", {}, h("button", { type: "button", onclick: (event) => { add({ symbol: alert.symbol, name: alert.name }); event.target.remove(); } }, t("watch_it"))) : null));
    }
  };
  button.addEventListener("click", () => open(place.hidden));
  const item = h("li", { class: `alert ${/^\w+$/.test(alert.severity) ? alert.severity : ""} ${alert.event === "suppressed" ? "suppressed" : ""} ${fresh ? "fresh" : ""}`, "data-id": alert.id, "data-ms": alert.ts_event_ms }, button, place);
  if (opened.has(alert.id)) open(true);
  return item;
}

/** Build the panel of alerts; returns it and how to take it down. */
export function feed() {
  const list = h("ul", { class: "list", tabindex: "0", "aria-label": t("alerts") }), empty = h("p", { class: "empty" });
  const counted = h("span", { class: "count", "data-role": "alert-count" }), told = h("p", { class: "unseen", role: "log", "aria-live": "polite", "aria-atomic": "true" });
  let waiting = [], timer = 0;

  const tally = () => {
    const shown = list.childElementCount, all = count();
    counted.textContent = all === null ? String(shown) : String(all);
    counted.dataset.count = all ?? "";
    empty.hidden = shown > 0;
    empty.textContent = t(words || onlyWatched ? "none_match" : "no_alerts");
  };
  const draw = () => {
    list.replaceChildren(...known().filter(matches).slice(0, SHOWN).map((alert) => row(alert, false)));
    tally();
  };
  const announce = () => {
    timer = 0;
    if (!waiting.length) return;
    const [first] = waiting;
    told.textContent = waiting.length === 1 ? `${t("new_alert")}: ${who(first)} ${first.message || named("e", first.event)}` : `${waiting.length} ${t("new_alerts")}`;
    waiting = [];
    timer = setTimeout(announce, TOLD_EVERY_MS);
  };
  const onAdded = ({ detail: alert }) => {
    if (matches(alert)) {
      const before = [...list.children].find((one) => Number(one.dataset.ms) <= alert.ts_event_ms) ?? null;
      list.insertBefore(row(alert, true), before);
      while (list.childElementCount > SHOWN) list.lastElementChild.remove();
      waiting.push(alert);
      if (!timer) timer = setTimeout(announce, 150);
    }
    tally();
  };
  const filter = h("input", { type: "search", "aria-label": t("filter"), placeholder: t("filter"), value: words, size: 10, oninput: () => { words = filter.value.trim().toLowerCase(); draw(); } });
  const watched = h("label", {}, h("input", { type: "checkbox", checked: onlyWatched, onchange: (event) => { onlyWatched = event.target.checked; draw(); } }), t("only_watched"));
  ledger.addEventListener("added", onAdded);
  ledger.addEventListener("replaced", draw);
  draw();
  return {
    element: h("section", { class: "panel feed", "aria-label": t("alerts") },
      h("header", {}, h("h2", {}, t("alerts")), counted, h("span", { class: "gap" }), watched, filter), list, empty, told),
    remove() {
      clearTimeout(timer);
      ledger.removeEventListener("added", onAdded);
      ledger.removeEventListener("replaced", draw);
    },
  };
}
