// Numbers and times as people read them. Times are Shanghai's, whatever the browser's.
import { language } from "./words.js";

const NONE = "–";
const ZONE = "Asia/Shanghai";

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export const price = (value) => known(value) ? value.toFixed(Math.abs(value) >= 1000 ? 2 : value % 1 && (value * 100) % 1 > 1e-6 && (value * 100) % 1 < 1 - 1e-6 ? 3 : 2) : NONE;

export const signed = (value, digits = 2) => known(value) ? `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(digits)}` : NONE;

export const percent = (value) => known(value) ? `${signed(value)}%` : NONE;

export const whole = (value) => known(value) ? Math.round(value).toLocaleString("en-US") : NONE;

/** A value of a formula: a truth, a count, a price, an amount. */
export function value(it) {
  if (it === true) return "✓";
  if (it === false) return "✗";
  if (!known(it)) return NONE;
  if (typeof it !== "number") return String(it);
  if (Math.abs(it) >= 1e5) return amount(it);
  return Number.isInteger(it) ? String(it) : String(Number(it.toFixed(Math.abs(it) < 1 ? 4 : 3)));
}

/** A large number in the language's own units. */
export function amount(it) {
  if (!known(it)) return NONE;
  const units = language() === "zh" ? [[1e8, "亿"], [1e4, "万"]] : [[1e9, "B"], [1e6, "M"], [1e3, "K"]];
  for (const [size, unit] of units) if (Math.abs(it) >= size) return `${(it / size).toFixed(2)}${unit}`;
  return it.toFixed(0);
}

const clocks = new Intl.DateTimeFormat("en-GB", { timeZone: ZONE, hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dates = new Intl.DateTimeFormat("en-CA", { timeZone: ZONE, year: "numeric", month: "2-digit", day: "2-digit" });

export const clock = (ms) => known(ms) && ms > 0 ? clocks.format(ms) : NONE;

export const date = (ms) => known(ms) && ms > 0 ? dates.format(ms) : NONE;

export const moment = (ms) => known(ms) && ms > 0 ? `${date(ms).slice(5)} ${clock(ms)}` : NONE;

export function duration(seconds) {
  if (!known(seconds)) return NONE;
  const parts = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]], told = [];
  let left = Math.floor(seconds);
  for (const [size, unit] of parts) {
    if (left >= size || (size === 1 && !told.length)) told.push(`${Math.floor(left / size)}${unit}`);
    left %= size;
  }
  return told.slice(0, 2).join(" ");
}

/** "up", "down" or "" for a change. */
export const way = (change) => change > 0 ? "up" : change < 0 ? "down" : "";
