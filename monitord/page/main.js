// The page: its head, its places, and which of them is shown.
import { board } from "./board.js";
import { h, icon } from "./element.js";
import { clock, date } from "./format.js";
import { keepToken, news } from "./gateway.js";
import { health } from "./health.js";
import { history } from "./history.js";
import { reload } from "./ledger.js";
import { isKnown, login } from "./login.js";
import { isDark, isWest, looks, turnColours, turnTheme } from "./looks.js";
import { report, reports } from "./report.js";
import { rules } from "./rules.js";
import { connect, stream, streamState } from "./stream.js";
import { tasks } from "./tasks.js";
import { open } from "./watchlist.js";
import { language, speak, t, tellDocument } from "./words.js";

const PLACES = { board, history, rules, tasks, health };
const ICONS = {
  board: "M4 19V9m6 10V5m6 14v-7m4 7H2", history: "M12 7v5l3 2M4 12a8 8 0 1 0 2.5-5.8L4 8.5M4 4v4.5h4.5", rules: "M8 4H5v16h3m8-16h3v16h-3M9 15l2-6 2 6 2-6",
  tasks: "M9 6h11M9 12h11M9 18h11M4 6l1 1 1.6-2M4 12l1 1 1.6-2M4 18l1 1 1.6-2", health: "M3 12h4l2.5-7 5 14L17 12h4",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8ZM12 2v2m0 16v2M4 12H2m20 0h-2M5.6 5.6 4.2 4.2m15.6 15.6-1.4-1.4M18.4 5.6l1.4-1.4M4.2 19.8l1.4-1.4", moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5Z",
  colours: "M7 20V5m0 0L3.5 8.5M7 5l3.5 3.5M17 4v15m0 0-3.5-3.5M17 19l3.5-3.5", key: "M14.5 9.5a4 4 0 1 0-4.2 4L12 15h2v2h2v2h3v-3l-5.2-5.2",
};
let shown = null, notice = null;

const placeName = () => Object.hasOwn(PLACES, location.hash.slice(1)) ? location.hash.slice(1) : "board";

function look(label, path, turn) {
  return h("button", { type: "button", class: "plain", "aria-label": label, title: label, onclick: turn }, icon(path));
}

function head() {
  const current = placeName();
  const state = h("span", { class: "state", role: "status", "data-state": streamState() }, h("span", {}, t(streamState())));
  const time = h("span", { class: "clock", title: t("market_time") });
  const tick = () => { const ms = report()?.engine?.clock_ms; time.textContent = ms ? `${date(ms)} ${clock(ms)}` : ""; };
  tick();
  return {
    element: h("header", { class: "head" }, h("h1", { class: "brand" }, h("img", { src: "page/mark.svg", alt: "" }), "monitord"),
      h("nav", { class: "tabs", "aria-label": t("places") }, Object.keys(PLACES).map((name) => h("a", { href: `#${name}`, "aria-current": name === current ? "page" : null }, icon(ICONS[name]), t(name)))),
      h("span", { class: "gap" }), time, state,
      h("div", { class: "looks" }, isKnown() ? look(t("token_forget"), ICONS.key, () => { keepToken(null); location.reload(); }) : null,
        look(t(isWest() ? "colours_west" : "colours"), ICONS.colours, () => { turnColours(); draw(); }), look(t("theme"), isDark() ? ICONS.sun : ICONS.moon, () => { turnTheme(); draw(); }),
        h("button", { type: "button", class: "plain", "aria-label": t("language"), title: t("language"), onclick: () => { speak(language() === "zh" ? "en" : "zh"); draw(); } }, language() === "zh" ? "EN" : "中"))),
    tick,
    show() { state.dataset.state = streamState(); state.firstChild.textContent = t(streamState()); },
  };
}

let top = null;

function noticeBar() {
  if (!notice) return null;
  return h("div", { class: "notice", role: "alert" }, h("span", {}, t(notice.key), notice.detail ?? ""), notice.key === "missed" ? h("a", { href: "#history" }, t("open_history")) : null,
    notice.key === "upgraded" ? h("button", { type: "button", onclick: () => location.reload() }, t("load_anew")) : null,
    h("button", { type: "button", class: "plain", "aria-label": t("close"), onclick: () => say(null) }, "×"));
}

function say(key, detail) {
  notice = key ? { key, detail } : null;
  document.querySelector(".notice")?.remove();
  const bar = noticeBar();
  if (bar) top.element.after(bar);
}

/** Build everything anew in today's words; what is known stays, as it is kept elsewhere. */
function draw() {
  const scroll = scrollY, focused = document.activeElement?.getAttribute("aria-label");
  shown?.remove();
  tellDocument();
  document.title = `${t(placeName())} · monitord`;
  top = head();
  shown = PLACES[placeName()]();
  const foot = h("footer", { class: "foot" }, h("span", {}, t("charts_by"), h("a", { href: "https://www.tradingview.com/", rel: "noreferrer" }, "TradingView Lightweight Charts™")), h("a", { href: "docs" }, "API"));
  document.body.replaceChildren(...[top.element, noticeBar(), h("main", { id: "content", tabindex: "-1" }, shown.element), foot, document.querySelector("dialog")].filter(Boolean));
  if (focused) [...document.querySelectorAll("[aria-label]")].find((one) => one.getAttribute("aria-label") === focused)?.focus?.({ preventScroll: true });
  scrollTo(0, scroll);
}

function askForToken(wasKnown) {
  login(() => { connect(); draw(); }, wasKnown);
}

stream.addEventListener("state", () => top?.show());
stream.addEventListener("begun", ({ detail }) => {
  open();
  if (detail.isFirst || detail.isGap) reload().catch((error) => say("failed", error.message));
  if (detail.isGap && !detail.isFirst) say("missed");
  else if (!["unreadable", "upgraded"].includes(notice?.key)) say(null);
});
stream.addEventListener("refused", ({ detail }) => say(detail.isOrigin ? "origin" : detail.channel ? "unreadable" : "refused", detail.isOrigin ? "" : detail.channel || detail.msg));
stream.addEventListener("unauthorised", ({ detail }) => askForToken(detail.wasKnown));
news.addEventListener("unauthorised", () => askForToken(isKnown()));
reports.addEventListener("told", () => top?.tick());
// This page's program is that of the version before: what it asks may be answered otherwise now.
reports.addEventListener("upgraded", () => { if (notice?.key !== "upgraded") say("upgraded", ` ${report().version}`); });
looks.addEventListener("changed", () => top?.show());
addEventListener("hashchange", draw);

draw();
connect();
