// The rules in force with how far each is, and the box to try formulas out.
import { h } from "./element.js";
import { duration, whole } from "./format.js";
import { ask, isPassing } from "./gateway.js";
import { search } from "./search.js";
import { heads, opening } from "./table.js";
import { tryFormula, tryout } from "./tryout.js";
import { tree } from "./why.js";
import { t } from "./words.js";

const ANEW_MS = 15000;
let words = "";

function stateOf(warmth) {
  if (!warmth) return h("span", { class: "tag" }, t("s_groups"));
  const tone = { ready: "good", warming: "warn", waiting: "" }[warmth.state] ?? "";
  const left = warmth.missing.map((one) => `${one.bars} × ${one.period}`).join(", ");
  const hint = [left, warmth.eta_s === null ? "" : duration(warmth.eta_s)].filter(Boolean).join(" · ");
  return h("span", { class: `tag ${tone}`, title: hint || null }, `${t(`s_${warmth.state}`)} ${whole(warmth.ready)}/${whole(warmth.symbols)}`);
}

function explained(rule) {
  const place = h("div", {});
  return h("div", { class: "stack" }, search(async (one) => {
    place.replaceChildren(t("loading"));
    try {
      const told = await ask(`v1/rules/${encodeURIComponent(rule.id)}/explain/${one.symbol}`);
      place.replaceChildren(h("p", {}, h("b", {}, `${told.name ?? ""} ${told.symbol} `), h("span", { class: "dim" }, told.not_watched ?? told.not_sampled ?? told.clock ?? "")),
        ...told.legs.flatMap((leg) => [tree(leg.condition), h("p", { class: "dim" }, [`${t("phase")}: ${leg.phase}`, leg.timer, leg.holds_back].filter(Boolean).join(" · "))]));
    } catch (error) {
      place.replaceChildren(h("p", { class: "bad" }, error.message));
    }
  }), place);
}

function ruleRows(rule) {
  const button = h("button", { type: "button", class: "link" }, rule.id);
  const formula = rule.legs.map((leg) => (leg.name ? `${leg.name}: ` : "") + leg.when.trim()).join("\n");
  return opening([
    h("td", {}, button, h("br"), h("span", { class: "code" }, rule.group)), h("td", { class: "beside" }, stateOf(rule.warmth)), h("td", { class: "tight beside" }, [...new Set([rule.period, rule.evaluation])].join(" · ")), h("td", { class: "tight beside" }, rule.severity),
    h("td", {}, h("div", { class: "formula-cell", title: formula }, formula)),
    h("td", { class: "number beside" }, h("button", { type: "button", "aria-label": `${t("try_it")}: ${rule.id}`, onclick: (event) => { event.stopPropagation(); tryFormula(rule.legs[0].when.trim(), rule.period); } }, t("try_it"))),
  ], button, () => h("div", { class: "why" }, rule.legs.map((leg) => h("section", {}, leg.name ? h("h3", {}, leg.name) : null, h("pre", { class: "mono" }, leg.when.trim()), leg.rearm ? h("p", { class: "mono dim" }, `${t("rearm")}: ${leg.rearm.trim()}`) : null)),
    h("dl", {}, Object.entries({ mode: rule.mode, freq: rule.frequency, session: rule.session.join(" "), cooldown: rule.cooldown_ms ? duration(rule.cooldown_ms / 1000) : "–", max_per_day: rule.max_per_day ?? "–", file: `${rule.file.split("/").at(-1)}:${rule.line}` })
      .map(([name, it]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(it))))), h("section", {}, h("h3", {}, t("condition")), explained(rule))));
}

function inForce() {
  const body = h("tbody", {}), counted = h("span", { class: "count" }), told = h("div", { class: "pad", role: "status", hidden: true }), empty = h("p", { class: "empty", hidden: true });
  const table = h("table", { class: "stacked" }, heads(t("rule"), t("state"), t("period"), t("severity"), t("formula"), [h("span", { class: "unseen" }, t("try_it")), "number"]), body);
  let rules = [], timer = 0, isGone = false, isLost = false;

  const draw = () => {
    const shown = rules.filter((rule) => !words || `${rule.id} ${rule.group} ${rule.legs.map((leg) => leg.when).join(" ")}`.toLowerCase().includes(words));
    body.replaceChildren(...shown.flatMap(ruleRows));
    counted.textContent = rules.length;
    empty.textContent = t("nothing_here");
    empty.hidden = shown.length > 0;
  };
  const isBusy = () => body.querySelector("tr.open") !== null || body.contains(document.activeElement);
  const later = () => { clearTimeout(timer); timer = setTimeout(read, ANEW_MS); };
  const read = async () => {
    try {
      rules = (await ask("v1/rules")).rules;
      if (isLost) told.hidden = true;
      isLost = false;
      if (!isGone && !isBusy()) draw();
      // States change while rules warm up; once all are ready there is nothing to look for.
      if (!isGone && rules.some((rule) => rule.warmth && rule.warmth.state !== "ready")) later();
    } catch (error) {
      say("bad", error.message);
      isLost = true;
      if (!isGone && isPassing(error)) later();
    }
  };
  const say = (tone, ...what) => { isLost = false; told.hidden = false; told.className = `pad ${tone}`; told.replaceChildren(...what); };
  const reload = async () => {
    try {
      say("good", `${t("reloaded")}${(await ask("v1/rules/reload", { method: "POST" })).rules}`);
      await read();
    } catch (error) {
      say("bad", h("p", {}, error.message), ...error.findings.map((one) => h("p", { class: "mono" }, `${one.file}:${one.line}:${one.column}: ${one.message}`)));
    }
  };
  const filter = h("input", { type: "search", "aria-label": t("filter"), placeholder: t("filter"), value: words, size: 12, oninput: () => { words = filter.value.trim().toLowerCase(); draw(); } });
  read();
  return {
    element: h("section", { class: "panel", "aria-label": t("rules_in_force") }, h("header", {}, h("h2", {}, t("rules_in_force")), counted, h("span", { class: "gap" }), filter, h("button", { type: "button", onclick: reload }, t("reload"))), told, h("div", { class: "scroll", tabindex: "-1" }, table), empty),
    remove() { isGone = true; clearTimeout(timer); },
  };
}

export function rules() {
  const parts = [inForce(), tryout()];
  return {
    element: h("div", { class: "two" }, parts[1].element, parts[0].element),
    remove() { for (const part of parts) part.remove(); },
  };
}
