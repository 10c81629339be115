// Everything that was ever decided, with what each receiver was told of it: by alert, or by delivery.
import { choices, h, pick } from "./element.js";
import { moment } from "./format.js";
import { ask } from "./gateway.js";
import { heads, opening, pager } from "./table.js";
import { TONE, deliveryTag, why } from "./why.js";
import { named, t } from "./words.js";

const ROWS = 50;
const EVENTS = ["fire", "resolve", "pending", "confirmed", "withdrawn", "suppressed", "nodata", "flapping", "expired"], SEVERITIES = ["info", "warning", "error", "critical"], STATES = ["pending", "delivered", "dead", "withheld"];
let by = "alert";
const wanted = { alert: {}, delivery: {} };

const field = (name, label, more, changed) => {
  const input = h("input", { "aria-label": label, placeholder: label, value: wanted[by][name] ?? "", size: 12, ...more, onchange: () => changed(name, input.value.trim()) });
  return input;
};
const select = (name, label, all, options, prefix, changed) => choices(label, [["", all], ...options.map((one) => [one, prefix ? named(prefix, one) : one])], wanted[by][name] ?? "", (next) => changed(name, next));

function alertRow(alert, told) {
  const place = h("span", { class: "tags", "data-role": "deliveries" }, told === null ? "" : told.length ? told.map(deliveryTag) : h("span", { class: "dim" }, t("none")));
  const button = h("button", { type: "button", class: "link" }, alert.name || alert.symbol || alert.group || "–");
  return opening([
    h("td", { class: "tight beside dim" }, moment(alert.ts_event_ms)),
    h("td", { class: "tight beside" }, h("span", { class: `tag ${alert.event}` }, named("e", alert.event))),
    h("td", {}, button, " ", h("span", { class: "code" }, alert.name ? alert.symbol : "")),
    h("td", { class: "tight beside" }, alert.rule),
    h("td", { class: "tight beside" }, h("span", { class: `tag ${{ warning: "warn", error: "bad", critical: "bad" }[alert.severity] ?? ""}` }, alert.severity)),
    h("td", {}, alert.message || alert.why || ""), h("td", {}, place),
  ], button, () => why(alert));
}

/** Return alert id → its deliveries, null where the token may not read them. */
async function deliveriesOf(ids) {
  if (!ids.length) return new Map();
  const found = new Map(ids.map((id) => [id, []]));
  try {
    const told = await ask("v1/deliveries", { query: { alert_ids: ids.join(","), page_size: 1000 } });
    for (const one of told.deliveries) found.get(one.alert_id)?.push(one);
  } catch {
    return null;
  }
  return found;
}

function deliveryRow(one) {
  const button = h("button", { type: "button", class: "link" }, one.receiver);
  const detail = () => {
    const place = h("div", { class: "why" }, t("loading"));
    ask(`v1/deliveries/${one.id}`).then((told) => place.replaceChildren(
      h("ul", {}, told.attempts.map((each) => h("li", {}, moment(each.at_ms), " ", h("span", { class: `tag ${each.result === "ok" ? "good" : "bad"}` }, each.result), ` ${each.code ?? ""} ${each.text} `, h("span", { class: "dim" }, `${each.latency_ms} ms`)))),
      h("p", { class: "mono dim" }, told.alert_ids.join(" ")))).catch((error) => place.replaceChildren(error.message));
    return place;
  };
  return opening([
    h("td", { class: "tight beside dim" }, moment(one.created_ms)), h("td", {}, button), h("td", { class: "tight beside" }, h("span", { class: `tag ${TONE[one.state] ?? ""}` }, named("d", one.state))),
    h("td", { class: "tight beside" }, one.kind), h("td", { class: "number beside" }, String(one.attempts)), h("td", {}, one.reason ?? ""), h("td", { class: "mono dim" }, one.alert_id),
  ], button, detail);
}

export function history() {
  const bar = h("div", { class: "bar" }), body = h("tbody", {}), counted = h("span", { class: "count", "data-role": "history-count" }), empty = h("p", { class: "empty" }), wrong = h("p", { class: "pad bad", role: "alert", hidden: true });
  const turner = pager((page) => show(page)), table = h("table", { class: "stacked" });
  let asked = 0;

  const changed = (name, value) => { wanted[by][name] = value; show(1); };
  const dress = () => {
    bar.replaceChildren(...(by === "alert"
      ? [field("symbol", t("symbol"), { pattern: "[0-9]{6}\\.(SH|SZ|BJ)" }, (name, value) => changed(name, value.toUpperCase())), field("rule", t("rule"), {}, changed),
        select("event", t("event"), t("all_events"), EVENTS, "e", changed), select("severity", t("severity"), t("all_severities"), SEVERITIES, "", changed), field("trade_date", t("trade_date"), { type: "date" }, changed)]
      : [field("receiver", t("receiver"), {}, changed), select("state", t("state"), t("all_states"), STATES, "d", changed), field("alert_id", "alert id", { size: 24 }, changed)]),
      h("button", { type: "button", onclick: () => { wanted[by] = {}; dress(); show(1); } }, t("clear")));
    table.replaceChildren(by === "alert" ? heads(t("time"), t("event"), t("symbol"), t("rule"), t("severity"), t("message"), t("delivery"))
      : heads(t("recorded"), t("receiver"), t("state"), t("kind"), [t("attempts"), "number"], t("reason"), "alert"), body);
  };
  const show = async (page) => {
    const mine = ++asked;
    try {
      const told = await ask(by === "alert" ? "v1/alerts" : "v1/deliveries", { query: { ...wanted[by], page, page_size: ROWS } });
      const deliveries = by === "alert" ? await deliveriesOf(told.alerts.map((one) => one.data.id)) : null;
      if (mine !== asked) return;
      const rows = by === "alert" ? told.alerts.map((one) => alertRow(one.data, deliveries && deliveries.get(one.data.id))) : told.deliveries.map(deliveryRow);
      body.replaceChildren(...rows.flat());
      counted.textContent = told.total.toLocaleString("en-US");
      counted.dataset.count = told.total;
      empty.textContent = t("nothing_here");
      empty.hidden = rows.length > 0;
      table.hidden = !empty.hidden;
      wrong.hidden = true;
      turner.show(told);
    } catch (error) {
      if (mine !== asked) return;
      wrong.textContent = error.field ? `${error.field}: ${error.message}` : error.message;
      wrong.hidden = false;
    }
  };
  dress();
  show(1);
  return {
    element: h("section", { class: "panel", "aria-label": t("history") },
      h("header", {}, h("h2", {}, t("history")), counted, h("span", { class: "gap" }), pick(t("history"), [["alert", t("by_alert")], ["delivery", t("by_delivery")]], by, (next) => { by = next; dress(); show(1); }),
        h("button", { type: "button", onclick: () => show(1) }, t("refresh"))), bar, wrong, h("div", { class: "scroll", tabindex: "-1" }, table), empty, turner.element),
    remove() { asked += 1; },
  };
}
