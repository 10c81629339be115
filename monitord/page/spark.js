// A small line of today's prices, against yesterday's close.
import { s } from "./element.js";

const WIDTH = 108, HEIGHT = 28, PAD = 3;

/** An empty spark; drawSpark gives it its line. */
export const spark = () => s("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
  s("line", { class: "rest", x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 }), s("path", { class: "under" }), s("path", { class: "way" }));

/** trail: [ms, price] each, oldest first; rest: the price that the dotted line stands for. */
export function drawSpark(svg, trail, rest) {
  const [line, under, way] = svg.children;
  const prices = trail.map(([, price]) => price);
  if (prices.length < 2) return;
  const all = rest ? [...prices, rest] : prices, low = Math.min(...all), high = Math.max(...all), span = high - low || 1;
  const x = (i) => (i / (prices.length - 1)) * WIDTH, y = (price) => PAD + (1 - (price - low) / span) * (HEIGHT - 2 * PAD);
  const path = prices.map((price, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(price).toFixed(1)}`).join("");
  way.setAttribute("d", path);
  const floor = rest ? y(rest) : HEIGHT;
  under.setAttribute("d", `${path}L${WIDTH} ${floor.toFixed(1)}L0 ${floor.toFixed(1)}Z`);
  line.setAttribute("y1", floor);
  line.setAttribute("y2", floor);
}
