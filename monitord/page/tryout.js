// Trying a formula out: on recent bars, or as a rule on recorded ticks. Errors stand under the place they are at; fires are on the chart.
import { Chart } from "./charts.js";
import { choices, h, pick } from "./element.js";
import { moment, price, value } from "./format.js";
import { ask } from "./gateway.js";
import { browser } from "./keep.js";
import { search } from "./search.js";
import { heads } from "./table.js";
import { nameOf, symbols as watched, watchlist } from "./watchlist.js";
import { t } from "./words.js";

const PERIODS = ["1m", "5m", "15m", "30m", "60m", "1d", "1w"], MOST = 10;
const wish = { formula: browser.get("formula") ?? "FAST: MA(C,5); SLOW: MA(C,20);\nCROSS(FAST,SLOW)", symbols: [], period: "1m", on: "bars", count: 250 };
let shown = null, isTouched = false;

/** Put a formula into the box, of whatever place the page is at. */
export function tryFormula(formula, period) {
  wish.formula = formula;
  if (PERIODS.includes(period)) wish.period = period;
  if (period === "tick") wish.on = "ticks";
  shown?.();
}

function chips(list, changed) {
  const place = h("div", { class: "chips" });
  const draw = () => place.replaceChildren(...list.map((one) => h("span", { class: "chip" }, one.name || one.symbol, h("button", { type: "button", "aria-label": `${t("remove")} ${one.symbol}`, onclick: () => { list.splice(list.indexOf(one), 1); draw(); changed(); } }, "×"))),
    search((one) => { if (list.length < MOST && !list.some((other) => other.symbol === one.symbol)) { list.push(one); draw(); changed(); } }));
  draw();
  place.redraw = draw;
  return place;
}

/** Select what a finding is about. */
function goTo(area, finding) {
  const before = area.value.split("\n").slice(0, finding.line - 1).reduce((sum, line) => sum + line.length + 1, 0);
  area.focus();
  area.setSelectionRange(before + finding.column - 1, before + finding.end_column - 1);
}

const findings = (list, area) => list.map((one) => h("div", {}, h("pre", { class: `finding ${one.severity}`, tabindex: "0" }, one.rendered ?? one.message),
  one.line ? h("button", { type: "button", class: "plain", onclick: () => goTo(area, one) }, t("go_there")) : null));

export function tryout() {
  const begin = () => { if (!wish.symbols.length && !isTouched) { wish.symbols.push(...watched().slice(0, 2)); picked.redraw(); } };
  const area = h("textarea", { class: "formula", "aria-label": t("formula"), spellcheck: "false", autocapitalize: "off", maxlength: 4000, rows: 5 }), out = h("div", { class: "result stack", "aria-live": "polite" });
  const run = h("button", { type: "submit", class: "main" }, t("run")), count = h("input", { type: "number", min: 10, max: 1000, value: wish.count, "aria-label": t("bars"), onchange: () => { wish.count = Number(count.value) || 250; } });
  const period = choices(t("period"), [...PERIODS, "tick"].map((one) => [one, t(`p_${one}`)]), wish.period, (next) => { wish.period = next; });
  const on = pick(t("on"), [["bars", t("on_bars")], ["ticks", t("on_ticks")]], wish.on, (next) => { wish.on = next; count.disabled = next === "ticks"; });
  const picked = chips(wish.symbols, () => { isTouched = true; });
  let chart = null, asking = null;

  const clear = () => { chart?.remove(); chart = null; out.replaceChildren(); };
  const tell = (...elements) => { clear(); out.append(...elements.flat().filter(Boolean)); };
  const show = (told, at) => {
    const one = told.symbols[at], place = h("div", { class: "chart", "data-role": "tryout-chart" }), names = h("div", { class: "facts" });
    const last = one.condition.at(-1);
    tell(findings(told.warnings, area), told.notes.map((note) => h("p", { class: "dim" }, t("note"), note)),
      h("div", { class: "line" }, told.symbols.length > 1 ? pick(t("symbols"), told.symbols.map((each, i) => [String(i), `${label(each.symbol)} · ${each.fires.length}`]), String(at), (next) => show(told, Number(next))) : h("b", {}, label(one.symbol)),
        h("span", { class: "tag fire", "data-role": "fire-count" }, `${one.fires.length} ${t("fires")}`), told.on === "bars" ? h("span", { class: `tag ${last === 1 ? "good" : ""}` }, t(last === 1 ? "true_now" : last === 0 ? "false_now" : "unknown_now")) : null, names),
      one.bars.ts_end.length ? place : h("p", { class: "empty" }, t("no_symbol_bars")), fires(one));
    if (!one.bars.ts_end.length) return;
    chart = new Chart(place, `${label(one.symbol)}: ${one.bars.ts_end.length} ${t("bars")}, ${one.fires.length} ${t("marks")}`);
    chart.show(one.bars);
    for (const [name, colour] of chart.outputs(one.bars.ts_end, one.outputs)) {
      const swatch = h("b", {}, "━ ");
      swatch.style.color = colour;
      names.append(h("span", {}, swatch, `${name} ${value(one.outputs[name].at(-1))}`));
    }
    chart.mark(one.fires);
    chart.fit();
  };
  const label = (symbol) => wish.symbols.find((one) => one.symbol === symbol)?.name || nameOf(symbol) || symbol;
  const fires = (one) => {
    if (!one.fires.length) return h("p", { class: "dim" }, t("no_fires"));
    const names = Object.keys(one.fires[0].values);
    return h("div", { class: "fires", tabindex: "0", role: "region", "aria-label": t("fires") }, h("table", {}, heads(t("time"), [t("last"), "number"], ...names.map((name) => [name, "number"])),
      h("tbody", {}, [...one.fires].reverse().slice(0, 200).map((fire) => h("tr", {}, h("td", { class: "tight" }, moment(fire.ts_ms)), h("td", { class: "number" }, price(fire.price)), names.map((name) => h("td", { class: "number" }, value(fire.values[name]))))))));
  };
  const go = async () => {
    wish.formula = area.value;
    browser.set("formula", wish.formula);
    if (!wish.symbols.length) return tell(h("p", { class: "bad" }, t("choose_symbols")));
    asking?.abort();
    const mine = asking = new AbortController();
    run.disabled = true;
    run.textContent = t("running");
    try {
      const body = { ...wish, symbols: wish.symbols.map((one) => one.symbol) };
      const told = await ask("v1/tryout", { method: "POST", body, signal: mine.signal });
      const most = told.symbols.reduce((best, one, i) => one.fires.length > told.symbols[best].fires.length ? i : best, 0);
      show(told, most);
    } catch (error) {
      if (mine.signal.aborted) return;
      tell(error.findings?.length ? findings(error.findings, area) : h("p", { class: "bad", role: "alert" }, error.message));
    } finally {
      if (asking === mine) { run.disabled = false; run.textContent = t("run"); }
    }
  };
  begin();
  watchlist.addEventListener("listed", begin);
  area.value = wish.formula;
  area.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !run.disabled) go(); });
  shown = () => { area.value = wish.formula; period.value = wish.period; for (const button of on.children) button.setAttribute("aria-pressed", String(button.value === wish.on)); area.focus(); area.scrollIntoView({ block: "center" }); };
  const form = h("form", { class: "stack pad", onsubmit: (event) => { event.preventDefault(); go(); } }, area,
    h("div", { class: "line" }, picked), h("div", { class: "line" }, on, period, h("label", {}, t("bars"), count), h("span", { class: "gap" }), run), h("p", { class: "dim" }, t("try_hint")), out);
  return {
    element: h("section", { class: "panel", "aria-label": t("tryout") }, h("header", {}, h("h2", {}, t("tryout"))), form),
    remove() { asking?.abort(); clear(); shown = null; watchlist.removeEventListener("listed", begin); },
  };
}
