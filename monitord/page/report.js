// The daemon's newest report on itself. Whoever listens hears: told, and upgraded when another version answers than at first.
import { stream } from "./stream.js";

export const reports = new EventTarget();
let newest = null, version = null;

export const report = () => newest;

stream.addEventListener("health", (event) => {
  newest = event.detail;
  reports.dispatchEvent(new Event("told"));
  version ??= newest.version;
  if (newest.version !== version) reports.dispatchEvent(new Event("upgraded"));
});
