// The symbols on the board, remembered; the latest quote of each, and today's way of its price by the minute.
// Whoever listens hears: listed (symbols changed), quote (a symbol's code), chosen (a symbol's code), trail (a symbol's code).
import { ask } from "./gateway.js";
import { browser } from "./keep.js";
import { follow, stream } from "./stream.js";

const MOST = 120, AT_FIRST = 8, DAY_MS = 86_400_000, SHANGHAI_MS = 28_800_000, ANEW_MS = 5000;
export const watchlist = new EventTarget();

let listed = read(), chosen = browser.get("chosen"), isOpen = false, isOpening = false, timer = 0;
const quotes = new Map(), trails = new Map();

const tell = (name, detail) => watchlist.dispatchEvent(new CustomEvent(name, { detail }));

function read() {
  try {
    const kept = JSON.parse(browser.get("watch") ?? "null");
    return Array.isArray(kept) ? kept.filter((one) => typeof one?.symbol === "string").slice(0, MOST) : null;
  } catch {
    return null;
  }
}

function listedAnew() {
  browser.set("watch", JSON.stringify(listed));
  follow(listed.map((one) => one.symbol));
  tell("listed");
}

/** The instruments on the board in their order, each { symbol, name }. */
export const symbols = () => listed ?? [];
export const isWatched = (symbol) => symbols().some((one) => one.symbol === symbol);
export const quoteOf = (symbol) => quotes.get(symbol);
export const nameOf = (symbol) => symbols().find((one) => one.symbol === symbol)?.name ?? "";
/** Today's prices by the minute, oldest first: [minute's end in ms, price] each. */
export const trailOf = (symbol) => trails.get(symbol) ?? [];
export const chosenSymbol = () => (isWatched(chosen) ? chosen : symbols()[0]?.symbol ?? null);

export function choose(symbol) {
  chosen = symbol;
  browser.set("chosen", symbol);
  tell("chosen", symbol);
}

export function add(instrument) {
  if (isWatched(instrument.symbol) || symbols().length >= MOST) return;
  listed = [{ symbol: instrument.symbol, name: instrument.name ?? "" }, ...symbols()];
  listedAnew();
  readTrail(instrument.symbol);
}

export function remove(symbol) {
  listed = symbols().filter((one) => one.symbol !== symbol);
  listedAnew();
}

/** Follow what is listed, at the very first time what the market begins with; once. Called at each connection until it is done. */
export async function open() {
  if (isOpen || isOpening) return;
  isOpening = true;
  if (listed === null) {
    const found = await ask("v1/instruments", { query: { limit: AT_FIRST } }).catch(() => null);
    isOpening = false;
    if (!found?.instruments.length) { // no answer, or nothing has ticked yet
      clearTimeout(timer);
      timer = setTimeout(open, ANEW_MS);
      return;
    }
    listed ??= found.instruments.map(({ symbol, name }) => ({ symbol, name: name ?? "" }));
  }
  isOpening = false;
  isOpen = true;
  listedAnew();
  await nameAll();
  for (const { symbol } of symbols()) await readTrail(symbol);
}

async function nameAll() {
  const nameless = symbols().filter((one) => !one.name);
  for (const one of nameless) {
    const found = await ask("v1/instruments", { query: { q: one.symbol, limit: 1 } }).catch(() => null);
    one.name = found?.instruments[0]?.name ?? "";
  }
  if (nameless.length) listedAnew();
}

const dayOf = (ms) => Math.floor((ms + SHANGHAI_MS) / DAY_MS);

async function readTrail(symbol) {
  const told = await ask(`v1/bars/${symbol}`, { query: { period: "1m", count: 240 } }).catch(() => null);
  const ends = told?.bars.ts_end ?? [];
  if (!ends.length) return;
  const today = dayOf(ends.at(-1));
  trails.set(symbol, ends.map((ms, i) => [ms, told.bars.close[i]]).filter(([ms, price]) => dayOf(ms) === today && price !== null));
  tell("trail", symbol);
}

stream.addEventListener("tick", ({ detail: quote }) => {
  quotes.set(quote.symbol, quote);
  if (quote.last !== null && quote.ts_event_ms) {
    const minute = Math.ceil(quote.ts_event_ms / 60_000) * 60_000;
    const trail = trails.get(quote.symbol) ?? [];
    if (trail.length && dayOf(trail.at(-1)[0]) !== dayOf(minute)) trail.length = 0;
    if (trail.length && trail.at(-1)[0] >= minute) trail[trail.length - 1] = [trail.at(-1)[0], quote.last];
    else trail.push([minute, quote.last]);
    trails.set(quote.symbol, trail);
  }
  tell("quote", quote.symbol);
});
