// The alerts this page knows: the newest of the history, and every one that has come since. Each id once.
// Whoever listens hears: added (one alert, live), replaced (all anew).
import { ask } from "./gateway.js";
import { stream } from "./stream.js";

const KEPT = 500, KNOWN = 20_000;
export const ledger = new EventTarget();

let alerts = [], ids = new Set(), total = null, asking = null;

/** The newest alerts, newest first. */
export const known = () => alerts;

/** How many events the history holds, as far as this page can tell; null until it has been asked. */
export const count = () => total;

const byTime = (a, b) => b.ts_event_ms - a.ts_event_ms;

function add(alert) {
  if (ids.has(alert.id)) return;
  ids.add(alert.id);
  if (asking) asking.meanwhile.push(alert.id);
  if (total !== null) total += 1;
  let at = 0;
  while (at < alerts.length && alerts[at].ts_event_ms > alert.ts_event_ms) at += 1;
  alerts.splice(at, 0, alert);
  // Ids stay known for long: one that is published twice must not count twice.
  if (ids.size > KNOWN) ids.delete(ids.values().next().value);
  if (alerts.length > KEPT) alerts.length = KEPT;
  ledger.dispatchEvent(new CustomEvent("added", { detail: alert }));
}

/** Read the newest of the history again, and how many there are; what comes live meanwhile is counted once. */
export async function reload() {
  const mine = asking = { meanwhile: [] };
  try {
    const page = await ask("v1/alerts", { query: { page_size: KEPT } });
    if (asking !== mine) return;
    const told = page.alerts.map((one) => one.data), there = new Set(told.map((alert) => alert.id));
    const unread = mine.meanwhile.filter((id) => !there.has(id));
    const later = alerts.filter((alert) => unread.includes(alert.id));
    total = page.total + unread.length;
    alerts = [...later, ...told].sort(byTime).slice(0, KEPT);
    for (const alert of told) ids.add(alert.id);
    ledger.dispatchEvent(new Event("replaced"));
  } finally {
    if (asking === mine) asking = null;
  }
}

stream.addEventListener("alert", (event) => add(event.detail));
