// Candles, lines of a formula, and marks where it fires. Drawn by TradingView Lightweight Charts, whose own logo is off because it is
// an inline style, which our policy forbids; the foot of the page names them instead.
import { CandlestickSeries, ColorType, CrosshairMode, HistogramSeries, LineSeries, createChart, createSeriesMarkers } from "./vendor/lightweight-charts-5.2.1.mjs";
import { language } from "./words.js";
import { looks } from "./looks.js";

const SHANGHAI_S = 28_800, WIDEST_BAR = 14, MOST_NAMED = 6;
const LINES = ["#e8890c", "#3b82f6", "#a855f7", "#0ea5a4", "#d6409f", "#84720b"];

/** The chart's time of a moment: it knows UTC alone, so Shanghai's clock is told as if it were. */
const at = (ms) => Math.floor(ms / 1000) + SHANGHAI_S;

/** A colour of the theme as the canvas takes it. */
function colour(name) {
  const probe = document.createElement("span");
  probe.hidden = true;
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

function faint(rgb, alpha) {
  const [r, g, b] = rgb.match(/[\d.]+/g);
  return `rgba(${r}, ${g}, ${b}, ${alpha})`;
}

export class Chart {
  /** Draw in this element; label says to readers of the screen what it shows. */
  constructor(element, label) {
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", label);
    this.element = element;
    this.chart = createChart(element, { autoSize: true, layout: { attributionLogo: false }, handleScroll: { vertTouchDrag: false } });
    this.candles = this.chart.addSeries(CandlestickSeries, { priceLineVisible: false });
    this.volume = this.chart.addSeries(HistogramSeries, { priceScaleId: "volume", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false });
    this.chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    this.candles.priceScale().applyOptions({ scaleMargins: { top: 0.12, bottom: 0.2 } });
    this.markers = createSeriesMarkers(this.candles, []);
    this.lines = [];
    this.bars = [];
    this.fires = [];
    this.dress = () => this.paint();
    looks.addEventListener("changed", this.dress);
    this.paint();
  }

  /** Take the theme's colours. */
  paint() {
    const up = colour("up"), down = colour("down"), line = colour("line"), dim = colour("dim");
    this.up = up;
    this.down = down;
    this.chart.applyOptions({
      layout: { background: { type: ColorType.Solid, color: colour("panel") }, textColor: dim, fontSize: 11, attributionLogo: false, panes: { separatorColor: line } },
      grid: { vertLines: { color: faint(line, 0.55) }, horzLines: { color: faint(line, 0.55) } },
      crosshair: { mode: CrosshairMode.Normal, vertLine: { color: dim, labelBackgroundColor: dim }, horzLine: { color: dim, labelBackgroundColor: dim } },
      rightPriceScale: { borderColor: line }, timeScale: { borderColor: line, timeVisible: true, secondsVisible: false, rightOffset: 3 },
      localization: { locale: language() === "zh" ? "zh-CN" : "en-GB" },
    });
    this.candles.applyOptions({ upColor: up, downColor: down, borderUpColor: up, borderDownColor: down, wickUpColor: up, wickDownColor: down });
    this.drawVolume();
    this.mark(this.fires);
  }

  /** Show bars (columns, as the gateway tells them). */
  show(bars) {
    this.bars = bars.ts_end.map((ms, i) => ({ time: at(ms), open: bars.open[i] ?? bars.close[i], high: bars.high[i] ?? bars.close[i],
      low: bars.low[i] ?? bars.close[i], close: bars.close[i], lots: bars.volume_lots[i] ?? 0 })).filter((bar) => bar.close !== null);
    const digits = this.bars.some((bar) => Math.abs(Math.round(bar.close * 100) - bar.close * 100) > 1e-6) ? 3 : 2;
    this.candles.applyOptions({ priceFormat: { type: "price", precision: digits, minMove: 10 ** -digits } });
    this.candles.setData(this.bars);
    this.drawVolume();
  }

  drawVolume() {
    const up = faint(this.up, 0.35), down = faint(this.down, 0.35);
    this.volume.setData(this.bars.map((bar) => ({ time: bar.time, value: bar.lots, color: bar.close >= bar.open ? up : down })));
  }

  /** Let the newest bar follow a price; returns whether it is of that bar's time. */
  follow(price, ms) {
    const bar = this.bars.at(-1);
    if (!bar || price === null) return true;
    if (at(ms) > bar.time) return false;
    bar.close = price;
    bar.high = Math.max(bar.high, price);
    bar.low = Math.min(bar.low, price);
    this.candles.update(bar);
    return true;
  }

  /** Draw named columns: those near the price upon it, the others below it. Returns the colour of each name. */
  outputs(ends, columns) {
    for (const series of this.lines) this.chart.removeSeries(series);
    this.lines = [];
    const colours = new Map(), prices = this.bars.map((bar) => bar.close), low = Math.min(...prices), high = Math.max(...prices), room = (high - low) || high * 0.02;
    let shown = 0;
    for (const [name, values] of Object.entries(columns)) {
      const known = values.filter((one) => one !== null);
      if (!known.length || shown >= LINES.length) continue;
      const isPrice = Math.min(...known) >= low - 3 * room && Math.max(...known) <= high + 3 * room;
      const colourOf = LINES[shown++];
      const series = this.chart.addSeries(LineSeries, { color: colourOf, lineWidth: 1.5, priceLineVisible: false, lastValueVisible: !isPrice, title: isPrice ? "" : name, crosshairMarkerVisible: false }, isPrice ? 0 : 1);
      series.setData(ends.map((ms, i) => values[i] === null ? { time: at(ms) } : { time: at(ms), value: values[i] }));
      this.lines.push(series);
      colours.set(name, colourOf);
    }
    return colours;
  }

  /** Mark fires: [{ ts_ms, text }]; each at the bar it belongs to. */
  mark(fires) {
    this.fires = fires;
    const accent = colour("accent"), marks = [];
    for (const fire of fires) {
      const bar = this.bars.find((one) => one.time >= at(fire.ts_ms)) ?? null;
      if (bar) marks.push({ time: bar.time, position: "aboveBar", shape: "arrowDown", color: accent, text: fires.length <= MOST_NAMED ? fire.text ?? "" : "", size: 1 });
    }
    this.markers.setMarkers(marks.sort((a, b) => a.time - b.time));
    this.element.dataset.marks = marks.length;
  }

  /** Show all bars; few of them stay slim and stand at the left, as a day that has just begun. */
  fit() {
    const scale = this.chart.timeScale(), room = this.element.clientWidth - 70;
    if (this.bars.length * WIDEST_BAR > room) return scale.fitContent();
    scale.applyOptions({ barSpacing: WIDEST_BAR });
    return scale.setVisibleLogicalRange({ from: -0.5, to: room / WIDEST_BAR - 0.5 });
  }

  describe(label) { this.element.setAttribute("aria-label", label); }

  remove() {
    looks.removeEventListener("changed", this.dress);
    this.chart.remove();
  }
}
