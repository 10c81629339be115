// The WebSocket: comes back by itself, from where it was. Whoever listens hears:
// state (connecting, live, waiting, stopped), alert, tick, health, begun (subscribed; recovered: false = a gap), refused, unauthorised.
import { address, ticket, token } from "./gateway.js";

const SILENCE_MS = 20000, FIRST_MS = 500, LONGEST_MS = 30000, STEADY_MS = 5000;
export const stream = new EventTarget();

let socket = null, place = null, tries = 0, timer = 0, watchdog = 0, nextId = 1, state = "connecting", wanted = new Set();
let asked = new Map(), followed = new Set(), liveSince = 0, turns = 0;

const tell = (name, detail) => stream.dispatchEvent(new CustomEvent(name, { detail }));
export const streamState = () => state;

function show(next) {
  state = next;
  tell("state", next);
}

/** Begin, or begin anew with the token there now is. */
export async function connect() {
  const turn = ++turns;
  clearTimeout(timer);
  timer = 0;
  drop();
  show(tries ? "waiting" : "connecting");
  let query = "";
  try {
    const one = await ticket();
    if (turn !== turns) return undefined;  // meanwhile another has begun, and its socket must be the only one
    if (one !== null) query = `?ticket=${encodeURIComponent(one)}`;
  } catch (error) {
    if (turn !== turns) return undefined;
    if (error.status === 401) return show("stopped");
    return again();
  }
  const url = address(`v1/ws${query}`);
  url.protocol = url.protocol.replace("http", "ws");
  const mine = socket = new WebSocket(url);
  watch();
  mine.onopen = () => { if (mine === socket) begin(); };
  mine.onmessage = (frame) => {
    if (mine !== socket) return;
    watch();
    for (const line of frame.data.split("\n")) hear(JSON.parse(line));
  };
  mine.onclose = (event) => { if (mine === socket) ended(event); };
  return undefined;
}

function drop() {
  const old = socket;
  socket = null;
  clearTimeout(watchdog);
  if (old) old.close();
}

function begin() {
  asked = new Map();
  followed = new Set();
  send("subscribe", [place ? { ch: "alerts", since: place } : { ch: "alerts" }]);
  send("subscribe", [{ ch: "health" }]);
  follow(wanted);
}

function send(op, args) {
  const id = nextId++;
  asked.set(id, { op, args });
  socket.send(JSON.stringify({ id, op, args }));
}

/** Follow the ticks of exactly these symbols. */
export function follow(symbols) {
  wanted = new Set(symbols);
  if (!socket || socket.readyState !== WebSocket.OPEN) return;
  const more = [...wanted].filter((symbol) => !followed.has(symbol)), fewer = [...followed].filter((symbol) => !wanted.has(symbol));
  if (more.length) send("subscribe", more.map((symbol) => ({ ch: `tick:${symbol}`, interval_ms: 500 })));
  if (fewer.length) send("unsubscribe", fewer.map((symbol) => ({ ch: `tick:${symbol}` })));
  followed = new Set(wanted);
}

function hear(message) {
  if (message.ch === "alerts") {
    place = { epoch: message.epoch, off: message.off };
    tell("alert", message.data);
  } else if (message.ch === "health") tell("health", message.data);
  else if (message.ch) tell("tick", message.data);
  else if (message.op === "hb") { if (place) place.off = Math.max(place.off, message.top.alerts); settle(); }
  else if (message.op === "notice") { if (message.code === "shutdown") tries = 0, again(message.reconnect_in_ms); }
  else if (message.ok === false) refusal(message);
  else if (message.ok) answer(message);
}

function answer(message) {
  const request = asked.get(message.id);
  asked.delete(message.id);
  if (request?.op !== "subscribe" || request.args[0].ch !== "alerts") return;
  const [result] = message.result;
  const isFirst = place === null, isGap = result.recovered === false;
  if (isFirst || isGap) place = { epoch: result.epoch, off: result.off };
  liveSince = performance.now();
  show("live");
  tell("begun", { isFirst, isGap });
}

/** A connection that holds for a while was a good one: the next wait is short again. */
function settle() {
  if (performance.now() - liveSince > STEADY_MS) tries = 0;
}

function refusal(message) {
  const request = asked.get(message.id);
  asked.delete(message.id);
  if (message.error.code === 106) {
    place = { epoch: "lost", off: 0 };  // no epoch has this name, so what comes is told as a gap
    socket.close();
  } else if (message.error.code === 120) socket.close();  // not now, as when the daemon has just come up: try again
  else if (message.error.code === 101) unauthorised();
  else {
    const channel = request?.args?.[0]?.ch ?? "";
    if (channel === "alerts") { show("live"); tell("begun", { isFirst: true, isGap: false }); }
    tell("refused", { channel, msg: message.error.msg });
  }
}

function unauthorised() {
  drop();
  show("stopped");
  tell("unauthorised", { wasKnown: token() !== null });
}

function ended(event) {
  socket = null;
  clearTimeout(watchdog);
  if (event.code === 4501 || event.code === 4001) return unauthorised();
  if (event.code >= 4500) {
    show("stopped");
    return tell("refused", { channel: null, msg: event.reason, isOrigin: event.code === 4503 });
  }
  if (state !== "waiting") show("waiting");
  if (!timer) again();
}

function again(afterMs) {
  clearTimeout(timer);
  const ms = afterMs ?? Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(tries, 6));
  tries += 1;
  timer = setTimeout(() => { timer = 0; connect(); }, ms * (0.75 + Math.random() / 2));
}

function watch() {
  clearTimeout(watchdog);
  watchdog = setTimeout(() => { if (socket) { const old = socket; ended({ code: 1006 }); old.close(); } }, SILENCE_MS);
}

// A laptop that wakes or finds its network again need not wait for the next try.
addEventListener("online", () => { if (state === "waiting") connect(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && state === "waiting") connect(); });
