// Why an alert fired: its values and tick, the parts of the condition as they are now, and what became of it at each receiver.
import { h } from "./element.js";
import { amount, clock, moment, price, value } from "./format.js";
import { ask } from "./gateway.js";
import { named, t } from "./words.js";

const PRICES = new Set(["last", "open", "high", "low", "prev_close", "limit_up", "limit_down"]);
export const TONE = { delivered: "good", dead: "bad", pending: "warn", withheld: "" };

function pairs(record, show) {
  return h("dl", {}, Object.entries(record).map(([name, it]) => h("div", {}, h("dt", {}, name), h("dd", {}, show(name, it)))));
}

const tickValue = (name, it) => PRICES.has(name) ? price(it) : name.endsWith("_ms") ? clock(it) : name === "amount_cny" ? amount(it) : value(it);

/** The parts of a condition with their values, indented as they are nested. */
export function tree(parts) {
  return h("ul", { class: "tree" }, parts.map((part) => h("li", { class: `d${Math.min(part.depth, 4)}`, title: part.known ? null : t("only_within") },
    h("span", {}, part.text), h("b", { class: part.value === true ? "good" : part.value === false ? "dim" : "" }, part.known ? value(part.value) : "·"))));
}

/** A receiver's name with what became of the delivery. */
export function deliveryTag(delivery) {
  return h("span", { class: `tag ${TONE[delivery.state] ?? ""}`, title: delivery.reason }, `${delivery.receiver} ${named("d", delivery.state)}`);
}

async function condition(alert, place) {
  try {
    const told = await ask(`v1/rules/${encodeURIComponent(alert.rule)}/explain/${encodeURIComponent(alert.symbol)}`);
    const legs = told.legs.filter((leg) => alert.leg === null || leg.leg === alert.leg);
    place.replaceChildren(...legs.flatMap((leg) => [tree(leg.condition),
      h("p", { class: "dim" }, `${t("phase")}: ${leg.phase}`, leg.timer ? ` · ${leg.timer}` : "", leg.holds_back ? ` · ${leg.holds_back}` : "")]));
    const why = told.not_watched ?? told.not_sampled;
    if (why) place.append(h("p", { class: "dim" }, why));
  } catch (error) {
    place.replaceChildren(h("p", { class: "dim" }, t("no_explain"), error.message));
  }
}

async function deliveries(alert, place) {
  try {
    const told = await ask("v1/deliveries", { query: { alert_id: alert.id } });
    place.replaceChildren(told.deliveries.length
      ? h("ul", {}, told.deliveries.map((one) => h("li", {}, deliveryTag(one), " ", h("span", { class: "dim" },
        `${one.attempts} ${t("attempts")} · ${moment(one.created_ms)}`, one.reason ? ` · ${one.reason}` : ""))))
      : h("p", { class: "dim" }, t("not_delivered")));
  } catch (error) {
    place.replaceChildren(h("p", { class: "dim" }, error.message));
  }
}

/** The whole answer for an alert; what has to be asked for comes as it is answered. */
export function why(alert, ...more) {
  const parts = h("div", {}, h("p", { class: "dim" }, t("loading"))), told = h("div", {}, h("p", { class: "dim" }, t("loading")));
  const isAbout = Boolean(alert.labels?.about); // an answer or a report about another alert: no rule decided it
  if (alert.symbol && alert.rule && !isAbout) condition(alert, parts);
  deliveries(alert, told);
  return h("div", { class: "why" },
    alert.why ? h("p", {}, `${t("why")}: ${alert.why}`) : null,
    Object.keys(alert.values ?? {}).length ? h("section", {}, h("h3", {}, t("values")), pairs(alert.values, (_, it) => value(it))) : null,
    isAbout ? h("section", {}, h("h3", {}, t("about")), pairs(alert.labels, (_, it) => it)) : null,
    alert.symbol && !isAbout ? h("section", {}, h("h3", {}, t("condition")), parts) : null,
    alert.tick ? h("section", {}, h("h3", {}, t("tick")), pairs(Object.fromEntries(Object.entries(alert.tick).filter(([, it]) => it !== null).slice(0, 12)), tickValue)) : null,
    h("section", {}, h("h3", {}, t("deliveries")), told), more);
}
