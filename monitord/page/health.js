// How the daemon is: ready or why not, its feed, its engine, its receivers.
import { h } from "./element.js";
import { amount, date, clock, duration, value, whole } from "./format.js";
import { ask } from "./gateway.js";
import { heads } from "./table.js";
import { report, reports } from "./report.js";
import { named, t } from "./words.js";

const ANEW_MS = 10000, TONE = { ok: "good", paused: "warn", misconfigured: "bad", disabled: "bad" };

/** Yield what a section says, what is within it named with a dot. */
function* flat(record, prefix = "") {
  for (const [name, it] of Object.entries(record ?? {})) {
    if (it !== null && typeof it === "object" && !Array.isArray(it)) yield* flat(it, `${prefix}${name}.`);
    else yield [prefix + name, it];
  }
}

const shownAs = (name, it) => name.endsWith("_ms") && typeof it === "number" && it > 1e11 ? `${date(it).slice(5)} ${clock(it)}` : Array.isArray(it) ? it.join(", ") || "–" : typeof it === "number" && Math.abs(it) >= 10000 ? whole(it) : value(it);

function card(title, record, ...first) {
  const told = [...flat(record)];
  return h("section", { class: "panel" }, h("header", {}, h("h2", {}, title)), h("div", { class: "pad stack" }, first,
    h("dl", { class: "pairs" }, told.map(([name, it]) => h("div", {}, h("dt", {}, name), h("dd", {}, shownAs(name, it)))))));
}

function receiverRow(one, turn) {
  const isOff = one.status === "disabled";
  return h("tr", {}, h("td", {}, h("b", {}, one.name)), h("td", { class: "beside" }, h("span", { class: `tag ${TONE[one.status] ?? ""}`, title: one.why }, named("r", one.status))), h("td", { class: "number beside" }, `${whole(one.pending)} ${t("in_line")}`),
    h("td", { class: "number beside" }, `${whole(one.dead)} ${t("dead_letters")}`), h("td", {}, one.why ?? ""), h("td", { class: "number" }, h("button", { type: "button", "aria-label": `${t(isOff ? "enable" : "disable")} ${one.name}`, onclick: () => turn(one.name, isOff) }, t(isOff ? "enable" : "disable"))));
}

export function health() {
  const place = h("div", { class: "cards" }), top = h("section", { class: "panel", role: "status" }), body = h("tbody", {}), empty = h("p", { class: "empty", hidden: true }, t("no_receivers")), wrong = h("p", { class: "pad bad", role: "alert", hidden: true });
  const table = h("table", { class: "stacked", hidden: true }, heads(t("receivers"), t("state"), [t("in_line"), "number"], [t("dead_letters"), "number"], t("reason"), [h("span", { class: "unseen" }, t("enable")), "number"]), body);
  let timer = 0, isGone = false, isLost = false;

  const show = () => {
    const told = report();
    if (!told) return top.replaceChildren(h("p", { class: "empty" }, t("no_health")));
    const { ready, reasons, feed, engine, outbox, reference, recording, receivers, uptime_s: uptime, loop_lag_s: lag, history, ...rest } = told;
    top.replaceChildren(h("div", { class: "pad stack" }, h("p", { class: `big ${ready ? "good" : "bad"}` }, t(ready ? "ready" : "not_ready")),
      reasons.length ? h("ul", { class: "reasons" }, reasons.map((one) => h("li", {}, one))) : null,
      h("div", { class: "facts" }, h("span", {}, `${t("uptime")} `, h("b", {}, duration(uptime))), h("span", {}, `${t("loop_lag")} `, h("b", {}, `${((lag ?? 0) * 1000).toFixed(1)} ms`)),
        h("span", {}, `${t("symbols_count")} `, h("b", {}, whole(engine?.symbols))), h("span", {}, `${t("rules_count")} `, h("b", {}, whole(engine?.rules))), h("span", {}, `${t("ticks")} `, h("b", {}, amount(engine?.ticks)))))); 
    place.replaceChildren(...[["feed", feed], ["engine", engine], ["outbox", outbox], ["recording", recording], ["reference", reference], ...Object.entries({ history, ...rest })]
      .filter(([, record]) => record !== null && typeof record === "object" && Object.keys(record).length).map(([name, record]) => card(t(name), record)));
    return undefined;
  };
  const read = async () => {
    clearTimeout(timer);
    try {
      const told = (await ask("v1/receivers")).receivers;
      if (isGone) return;
      if (!body.contains(document.activeElement)) body.replaceChildren(...told.map((one) => receiverRow(one, turn)));
      empty.hidden = told.length > 0;
      table.hidden = !empty.hidden;
      if (isLost) wrong.hidden = true;
      isLost = false;
    } catch (error) {
      isLost = true;
      wrong.textContent = error.message;
      wrong.hidden = false;
    }
    clearTimeout(timer);
    if (!isGone) timer = setTimeout(read, ANEW_MS);
  };
  const turn = async (name, isOff) => {
    try {
      await ask(`v1/receivers/${encodeURIComponent(name)}/${isOff ? "enable" : "disable"}`, { method: "POST", body: isOff ? {} : { reason: "switched off on the page" } });
      wrong.hidden = true;
    } catch (error) {
      wrong.textContent = error.message;
      wrong.hidden = false;
    }
    document.activeElement?.blur?.();
    read();
  };
  reports.addEventListener("told", show);
  show();
  read();
  return {
    element: h("div", { class: "stack" }, top, h("section", { class: "panel" }, h("header", {}, h("h2", {}, t("receivers"))), wrong, h("div", { class: "scroll", tabindex: "-1" }, table), empty), place),
    remove() { isGone = true; clearTimeout(timer); reports.removeEventListener("told", show); },
  };
}
