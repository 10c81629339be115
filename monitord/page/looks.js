// Light or dark, and whether red is up. Whoever listens hears: changed.
import { browser } from "./keep.js";

export const looks = new EventTarget();
const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");

const put = (name, value) => {
  if (value) root.dataset[name] = value;
  else delete root.dataset[name];
};

put("theme", browser.get("theme"));
put("colours", browser.get("colours") === "west" ? "west" : null);

export const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
export const isWest = () => root.dataset.colours === "west";

export function turnTheme() {
  put("theme", isDark() ? "light" : "dark");
  browser.set("theme", root.dataset.theme);
  looks.dispatchEvent(new Event("changed"));
}

export function turnColours() {
  put("colours", isWest() ? null : "west");
  browser.set("colours", root.dataset.colours ?? "cn");
  looks.dispatchEvent(new Event("changed"));
}

dark.addEventListener("change", () => looks.dispatchEvent(new Event("changed")));
