// REST: one way to ask, with the token where there is one. Addresses are relative, so a proxy may serve us under any path.
import { tab } from "./keep.js";

const TICKET_MS = 20_000;
export const news = new EventTarget();
/** "unauthorised": a token is needed, or the one there is wrong. */

export class Refused extends Error {
  constructor(status, error) {
    super(error?.msg ?? `HTTP ${status}`);
    this.status = status;
    this.code = error?.code;
    this.field = error?.field ?? null;
    this.findings = error?.findings ?? [];
  }
}

/** Tell whether asking again may help: nobody answered, or the fault is not ours. */
export const isPassing = (error) => !(error.status < 500);

export const token = () => tab.get("token");
export const keepToken = (secret) => tab.set("token", secret);

/** The address of a path of ours. */
export const address = (path) => new URL(path, document.baseURI);

/** Ask and return the JSON; throws Refused with the server's own words, TypeError where nobody answers. */
export async function ask(path, { query = {}, method = "GET", body, signal } = {}) {
  const url = address(path);
  for (const [name, value] of Object.entries(query)) if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  const headers = {};
  if (token()) headers.Authorization = `Bearer ${token()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(url, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  const told = await response.json().catch(() => null);
  if (response.ok) return told;
  if (response.status === 401) news.dispatchEvent(new Event("unauthorised"));
  throw new Refused(response.status, told?.error ?? (told?.message ? { msg: told.message, code: told.code } : null));
}

/** A ticket for the WebSocket, null where no token is at hand. */
export async function ticket() {
  return token() ? (await ask("v1/ticket", { method: "POST", signal: AbortSignal.timeout(TICKET_MS) })).ticket : null;
}
