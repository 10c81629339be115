// The board: watched symbols with price, change and today's way, the chosen one's candles with its fires, and the alerts beside them.
import { Chart } from "./charts.js";
import { h, pick } from "./element.js";
import { feed } from "./feed.js";
import { amount, clock, percent, price, signed, way } from "./format.js";
import { ask } from "./gateway.js";
import { browser } from "./keep.js";
import { known, ledger } from "./ledger.js";
import { search } from "./search.js";
import { drawSpark, spark } from "./spark.js";
import { add, choose, chosenSymbol, nameOf, quoteOf, remove, symbols, trailOf, watchlist } from "./watchlist.js";
import { t } from "./words.js";

const PERIODS = ["1m", "5m", "15m", "30m", "60m", "1d"], ANEW_MS = 5000, SOON_MS = 500;

function change(quote) {
  if (!quote || quote.last === null || !quote.prev_close) return [null, null];
  return [quote.last - quote.prev_close, (quote.last / quote.prev_close - 1) * 100];
}

function watchRow({ symbol, name }) {
  const line = spark(), cells = {
    last: h("td", { class: "number last" }), percent: h("td", { class: "number" }), abs: h("td", { class: "number wide change-abs" }), amount: h("td", { class: "number wide dim" }),
  };
  const take = h("button", { type: "button", class: "link name", onclick: () => choose(symbol) }, name || symbol);
  const drop = h("button", { type: "button", class: "plain drop", "aria-label": `${t("remove")} ${name || symbol}`, onclick: (event) => { event.stopPropagation(); remove(symbol); } }, "×");
  const row = h("tr", { class: "can", "data-symbol": symbol, onclick: () => choose(symbol) },
    h("td", {}, take, h("br"), h("span", { class: "code" }, symbol)), h("td", {}, line), cells.last, cells.percent, cells.abs, cells.amount, h("td", { class: "number" }, drop));
  let before = null;
  row.show = () => {
    const quote = quoteOf(symbol), [diff, ratio] = change(quote), tone = way(diff);
    cells.last.textContent = price(quote?.last);
    cells.percent.textContent = percent(ratio);
    cells.abs.textContent = signed(diff);
    cells.amount.textContent = amount(quote?.amount_cny);
    for (const cell of [cells.last, cells.percent, cells.abs]) { cell.classList.toggle("up", tone === "up"); cell.classList.toggle("down", tone === "down"); }
    line.setAttribute("class", `spark ${tone}`);
    if (quote && before !== null && quote.last !== before) flash(cells.last, quote.last > before);
    before = quote?.last ?? before;
  };
  row.draw = () => drawSpark(line, trailOf(symbol), quoteOf(symbol)?.prev_close);
  row.show();
  row.draw();
  return row;
}

function flash(cell, isUp) {
  cell.classList.remove("moved-up", "moved-down");
  void cell.offsetWidth;  // lets the animation begin anew
  cell.classList.add(isUp ? "moved-up" : "moved-down");
}

/** The watch list as a table; arrow keys walk it. */
function watch() {
  const body = h("tbody", {}), empty = h("p", { class: "empty" }, t("watch_empty")), counted = h("span", { class: "count" });
  const rowOf = (symbol) => [...body.rows].find((row) => row.dataset.symbol === symbol);
  const mark = () => { for (const row of body.rows) { const is = row.dataset.symbol === chosenSymbol(); row.classList.toggle("chosen", is); row.querySelector(".link").setAttribute("aria-pressed", String(is)); } };
  const list = () => {
    body.replaceChildren(...symbols().map(watchRow));
    counted.textContent = symbols().length;
    empty.hidden = symbols().length > 0;
    table.hidden = !empty.hidden;
    mark();
  };
  const table = h("table", { class: "watch" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("name")), h("th", { scope: "col" }, t("trend")), h("th", { scope: "col", class: "number" }, t("last")),
    h("th", { scope: "col", class: "number" }, t("change_percent")), h("th", { scope: "col", class: "number wide change-abs" }, t("change")), h("th", { scope: "col", class: "number wide" }, t("amount")),
    h("th", { scope: "col" }, h("span", { class: "unseen" }, t("remove"))))), body);
  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.classList.contains("link")) return;
    const next = body.rows[event.target.closest("tr").sectionRowIndex + step];
    if (!next) return;
    event.preventDefault();
    next.querySelector(".link").focus();
    choose(next.dataset.symbol);
  });
  const onQuote = ({ detail }) => { const row = rowOf(detail); if (row) { row.show(); row.draw(); } }, onTrail = ({ detail }) => rowOf(detail)?.draw();
  watchlist.addEventListener("listed", list);
  watchlist.addEventListener("chosen", mark);
  watchlist.addEventListener("quote", onQuote);
  watchlist.addEventListener("trail", onTrail);
  list();
  return {
    element: h("section", { class: "panel", "aria-label": t("watchlist") },
      h("header", {}, h("h2", {}, t("watchlist")), counted, h("span", { class: "gap" }), search((one) => { add(one); choose(one.symbol); })), h("div", { class: "scroll", tabindex: "-1" }, table), empty),
    remove() {
      watchlist.removeEventListener("listed", list);
      watchlist.removeEventListener("chosen", mark);
      watchlist.removeEventListener("quote", onQuote);
      watchlist.removeEventListener("trail", onTrail);
    },
  };
}

/** The chosen symbol: its quote in words, its candles, its fires. */
function chosenPanel() {
  const title = h("h2", {}), quoted = h("div", { class: "quote" }), facts = h("div", { class: "facts" }), place = h("div", { class: "chart" }), empty = h("p", { class: "empty", hidden: true }, t("no_bars"));
  let period = browser.get("period") ?? "1m", chart = null, asked = 0, due = 0;

  const fires = () => known().filter((alert) => alert.symbol === chosenSymbol() && alert.event === "fire").map((alert) => ({ ts_ms: alert.ts_event_ms, text: alert.rule }));
  const say = () => {
    const symbol = chosenSymbol(), quote = quoteOf(symbol), [diff, ratio] = change(quote), tone = way(diff);
    title.replaceChildren(nameOf(symbol) || symbol || "", " ", h("span", { class: "code" }, symbol ?? ""));
    quoted.replaceChildren(...(quote ? [h("span", { class: `last ${tone}` }, price(quote.last)), h("span", { class: tone }, `${signed(diff)}  ${percent(ratio)}`)] : [h("span", { class: "dim" }, t("waiting_quote"))]));
    const told = quote ? [["open", price(quote.open)], ["high", price(quote.high)], ["low", price(quote.low)], ["prev", price(quote.prev_close)], ["volume", amount(quote.volume_lots) + t("lots")], ["amount", amount(quote.amount_cny)], ["time", clock(quote.ts_event_ms)]] : [];
    facts.replaceChildren(...told.map(([key, text]) => h("span", {}, `${t(key)} `, h("b", {}, text))));
  };
  const draw = async (isNew) => {
    const symbol = chosenSymbol(), mine = ++asked;
    due = performance.now() + ANEW_MS;
    if (!symbol) return;
    const told = await ask(`v1/bars/${symbol}`, { query: { period, count: 480 } }).catch(() => null);
    if (mine !== asked) return;
    const isEmpty = !told?.bars.ts_end.length;
    empty.hidden = !isEmpty;
    place.hidden = isEmpty;
    if (isEmpty) return;
    chart ??= new Chart(place, "");
    chart.show(told.bars);
    chart.mark(fires());
    chart.describe(`${nameOf(symbol) || symbol} ${t(`p_${period}`)} ${t("chart_of")}: ${told.bars.ts_end.length} ${t("bars")}, ${price(told.bars.close.at(-1))}, ${fires().length} ${t("marks")}`);
    if (isNew) chart.fit();
  };
  const onChosen = () => { say(); draw(true); };
  const onQuote = ({ detail }) => {
    if (detail !== chosenSymbol()) return;
    say();
    const quote = quoteOf(detail), isOver = chart !== null && !chart.follow(quote.last, quote.ts_event_ms);
    if (performance.now() > due - (isOver ? ANEW_MS - SOON_MS : 0)) draw(empty.hidden === false);
  };
  const onAlert = ({ detail }) => { if (detail.symbol === chosenSymbol() && chart) chart.mark(fires()); };
  watchlist.addEventListener("chosen", onChosen);
  watchlist.addEventListener("listed", onChosen);
  watchlist.addEventListener("quote", onQuote);
  ledger.addEventListener("added", onAlert);
  onChosen();
  return {
    element: h("section", { class: "panel", "aria-label": t("chart_of") },
      h("header", {}, title, quoted, h("span", { class: "gap" }), pick(t("period"), PERIODS.map((one) => [one, t(`p_${one}`)]), period, (next) => { period = next; browser.set("period", next); draw(true); })),
      h("div", { class: "bar" }, facts), place, empty),
    remove() {
      asked += 1;
      chart?.remove();
      watchlist.removeEventListener("chosen", onChosen);
      watchlist.removeEventListener("listed", onChosen);
      watchlist.removeEventListener("quote", onQuote);
      ledger.removeEventListener("added", onAlert);
    },
  };
}

export function board() {
  const parts = [watch(), chosenPanel(), feed()];
  return {
    element: h("div", { class: "board" }, h("div", { class: "left" }, parts[0].element, parts[1].element), parts[2].element),
    remove() { for (const part of parts) part.remove(); },
  };
}
