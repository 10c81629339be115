"""What a person sees of `monitord run`: the address, alerts as they fire, and one live line of counts.

On a terminal that is rich's live display; anywhere else the same things are log lines.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import structlog
from rich.cells import set_cell_size
from rich.console import Console as Screen
from rich.live import Live
from rich.text import Text

from monitord.warmup import Progress
from rules.alert import Alert, Event, shanghai_iso

REDRAW_S: Final = 0.2
RATE_OVER_S: Final = 6.0
"""Two rounds of a whole market: over less, the rate would jump with every batch."""
LOG_EVERY_S: Final = 60.0
LOG_WARMING_S: Final = 10.0
BAR_CELLS: Final = 10
_COLOURS: Final = {"critical": "bold white on red", "error": "bold red", "warning": "yellow", "info": "cyan"}
_MARKS: Final = {
    Event.FIRE: ("▲", "bold red"),
    Event.RESOLVE: ("▼", "green"),
    Event.CONFIRMED: ("✔", "green"),
    Event.WITHDRAWN: ("✘", "dim"),
    Event.NODATA: ("○", "magenta"),
    Event.FLAPPING: ("≈", "yellow"),
    Event.EXPIRED: ("■", "dim"),
}
"""Events that are shown; pending and suppressed are stored and streamed only."""
SYMBOL_CELLS, NAME_CELLS, RULE_CELLS = 9, 10, 18

log = structlog.get_logger()


class Console(Protocol):
    """Shows a running daemon to whoever started it. All methods are called on the event loop's thread."""

    def start(self, address: str) -> None:
        """Begin; `address` is where the gateway listens."""

    def alert_fired(self, alert: Alert) -> None:
        """Show one event, if it is one for people."""

    def progress(
        self, *, ticks: int, symbols: int, clock_ms: int, lag_ms: float, alerts: int, warming: Progress | None = None
    ) -> None:
        """Take the counts since start, the market clock (Unix ms, 0 = not yet) and how far behind we are (ms).

        warming: how far the search for bars of the past is, None where nothing is searched.
        """

    def stop(self) -> None:
        """End; idempotent, and fine without a start."""


def make_console(*, clock: Callable[[], float] = time.monotonic) -> Console:
    """Return the live console where stdout is a terminal, else the one that logs."""
    return LiveConsole(Screen(), clock=clock) if sys.stdout.isatty() else LogConsole(clock=clock)


class LogConsole:
    """Says everything as log events: each alert, and the counts once a minute."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged_s = clock()
        self._warming_s = clock() - LOG_WARMING_S

    def start(self, address: str) -> None:
        log.info("gateway_listening", listens_on=address)

    def alert_fired(self, alert: Alert) -> None:
        if alert.event not in _MARKS:
            return
        log.info(
            "alert_fired",
            id=alert.id,
            type=alert.type,
            rule=alert.rule,
            symbol=alert.symbol,
            severity=alert.severity,
            event_ts=shanghai_iso(alert.ts_event_ms),
            message=alert.message,
        )

    def progress(
        self, *, ticks: int, symbols: int, clock_ms: int, lag_ms: float, alerts: int, warming: Progress | None = None
    ) -> None:
        now_s = self._clock()
        if warming is not None and now_s - self._warming_s >= LOG_WARMING_S:
            self._warming_s = now_s
            log.info("warming", done=warming.done, total=warming.total, source=warming.source, eta_s=warming.eta_s)
        if now_s - self._logged_s < LOG_EVERY_S:
            return
        self._logged_s = now_s
        log.info("progress", ticks=ticks, symbols=symbols, clock_ms=clock_ms, lag_ms=round(lag_ms, 1), alerts=alerts)

    def stop(self) -> None:
        """Nothing to take down."""


class LiveConsole:
    """Draws on a terminal: alerts scroll by above one line of counts that is redrawn in place, five times a second."""

    def __init__(self, screen: Screen, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen = screen
        self._clock = clock
        self._live = Live(console=screen, auto_refresh=False, transient=True)
        self._drawn: deque[tuple[float, int]] = deque([(clock(), 0)])
        """When the line was drawn within the last RATE_OVER_S, and the ticks until then: the difference is the rate."""
        self._gone = False

    def start(self, address: str) -> None:
        self._draw(lambda: self._begin(address))

    def alert_fired(self, alert: Alert) -> None:
        if alert.event in _MARKS:
            line = alert_line(alert)
            self._draw(lambda: self._screen.print(line, no_wrap=True, overflow="ellipsis", crop=True))

    def progress(
        self, *, ticks: int, symbols: int, clock_ms: int, lag_ms: float, alerts: int, warming: Progress | None = None
    ) -> None:
        now_s = self._clock()
        if now_s - self._drawn[-1][0] < REDRAW_S:
            return
        self._drawn.append((now_s, ticks))
        while len(self._drawn) > 2 and now_s - self._drawn[0][0] > RATE_OVER_S:
            self._drawn.popleft()
        first_s, before = self._drawn[0]
        line = status_line(
            ticks=ticks,
            rate=(ticks - before) / (now_s - first_s),
            symbols=symbols,
            clock_ms=clock_ms,
            lag_ms=lag_ms,
            alerts=alerts,
        )
        if warming is not None:
            line.append_text(warming_bar(warming))
        self._draw(lambda: self._live.update(line, refresh=True))

    def stop(self) -> None:
        self._draw(self._live.stop)

    def _begin(self, address: str) -> None:
        self._screen.print(Text.assemble("monitord ", ("listens on ", "dim"), (address, "bold underline")))
        self._screen.print(Text("Ctrl-C stops", "dim"))
        self._drawn = deque([(self._clock(), 0)])
        self._live.start()

    def _draw(self, draw: Callable[[], None]) -> None:
        """Draw, until the terminal has gone: the daemon outlives the window it was started in."""
        if self._gone:
            return
        try:
            draw()
        except OSError:
            self._gone = True


def alert_line(alert: Alert) -> Text:
    """Write one event in columns that hold for Chinese names, which take two cells a character."""
    mark, colour = _MARKS.get(alert.event, ("·", "dim"))
    return Text.assemble(
        (shanghai_iso(alert.ts_event_ms)[11:19], "dim"),
        " ",
        (mark, colour),
        " ",
        (set_cell_size(alert.symbol or alert.group or "", SYMBOL_CELLS), "bold"),
        " ",
        set_cell_size(alert.name or "", NAME_CELLS),
        " ",
        (set_cell_size(alert.rule, RULE_CELLS), _COLOURS.get(alert.severity, "cyan")),
        " ",
        alert.message or str(alert.event),
    )


def warming_bar(warming: Progress) -> Text:
    """Write how far the search for bars of the past is."""
    share = warming.done / warming.total if warming.total else 0.0
    full = int(share * BAR_CELLS)
    left = "" if warming.eta_s is None else f" {warming.eta_s:,.0f} s"  # short: a line that wraps is not redrawn
    return Text.assemble(
        " · warming ",
        ("█" * full + "░" * (BAR_CELLS - full), "cyan"),
        f" {share:.0%}{left}",
    )


def status_line(*, ticks: int, rate: float, symbols: int, clock_ms: int, lag_ms: float, alerts: int) -> Text:
    """Write the live line; rate in ticks a second."""
    clock = shanghai_iso(clock_ms)[11:19] if clock_ms > 0 else "--:--:--"
    return Text.assemble(
        (f" {clock} ", "black on cyan"),
        f" {ticks:,} ticks · {symbols:,} symbols · {rate:,.0f}/s · ",
        (f"lag {lag_ms:,.0f} ms", "red" if lag_ms > 1000 else ""),
        " · ",
        (f"{alerts:,} alerts", "bold"),
    )
