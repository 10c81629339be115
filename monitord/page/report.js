// The daemon's newest report on itself. Whoever listens hears: told.
import { stream } from "./stream.js";

export const reports = new EventTarget();
let newest = null;

export const report = () => newest;

stream.addEventListener("health", (event) => {
  newest = event.detail;
  reports.dispatchEvent(new Event("told"));
});
