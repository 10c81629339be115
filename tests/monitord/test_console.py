from __future__ import annotations

import io
import json

import pytest
from rich.cells import cell_len
from rich.console import Console as Screen

from monitord import log
from monitord.console import (
    LOG_EVERY_S,
    LOG_WARMING_S,
    RATE_OVER_S,
    REDRAW_S,
    LiveConsole,
    LogConsole,
    alert_line,
    make_console,
    status_line,
)
from monitord.warmup import Progress
from rules.alert import Alert, Event
from tests.monitord.test_log import Stdout, logging_as_before, stdout  # noqa: F401  # fixtures

AT_MS = 1675216923000  # 2023-02-01 10:02:03 in Shanghai


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def alert(**fields: object) -> Alert:
    given: dict[str, object] = {
        "id": "al_1",
        "episode_id": "ep_1",
        "event": Event.FIRE,
        "rule": "brk-moutai",
        "rev": "r",
        "symbol": "600519.SH",
        "name": "贵州茅台",
        "trade_date": "2023-02-01",
        "episode": 1,
        "ts_event_ms": AT_MS,
        "period": "tick",
        "message": "突破 1800：1849.00 +0.18%",
    }
    return Alert(**{**given, **fields})  # type: ignore[arg-type]


def live(width: int = 100) -> tuple[LiveConsole, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    return LiveConsole(Screen(file=stream, force_terminal=True, width=width), clock=clock), stream, clock


def test_columns_hold_for_names_of_any_width() -> None:
    lines = [
        alert_line(alert(name=name)).plain for name in ("贵州茅台", "*ST股", "TCL科技", None, "一个很长很长的名字")
    ]
    starts = {cell_len(line[: line.index("brk-moutai")]) for line in lines}
    assert len(starts) == 1


def test_an_alert_shows_exchange_time_symbol_name_rule_and_message() -> None:
    line = alert_line(alert()).plain
    assert line.startswith("10:02:03 ▲ 600519.SH 贵州茅台 ")
    assert line.endswith("突破 1800：1849.00 +0.18%")


def test_an_alert_without_a_symbol_shows_its_group() -> None:
    assert " 银行 " in alert_line(alert(symbol=None, group="银行", name=None)).plain


def test_an_alert_without_a_message_says_what_happened() -> None:
    assert alert_line(alert(message="", event=Event.NODATA)).plain.endswith("nodata")


def test_severity_is_a_colour() -> None:
    styles = {
        severity: [str(span.style) for span in alert_line(alert(severity=severity)).spans]
        for severity in ("critical", "warning", "info", "unheard-of")
    }
    assert "bold white on red" in styles["critical"]
    assert "yellow" in styles["warning"]
    assert "cyan" in styles["info"]
    assert "cyan" in styles["unheard-of"]


def test_text_of_rules_is_never_read_as_markup() -> None:
    console, stream, _ = live()
    console.alert_fired(alert(message="[bold]涨停[/nonsense]"))
    assert "[bold]涨停[/nonsense]" in stream.getvalue()


def test_a_line_longer_than_the_terminal_is_cut_not_wrapped() -> None:
    console, stream, _ = live(width=60)
    console.alert_fired(alert(message="很长" * 60))
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("event", [Event.PENDING, Event.SUPPRESSED])
def test_events_that_are_not_for_people_are_not_shown(event: Event) -> None:
    console, stream, _ = live()
    console.alert_fired(alert(event=event))
    assert stream.getvalue() == ""


def test_the_status_line_counts() -> None:
    line = status_line(ticks=1234567, rate=1833.4, symbols=5500, clock_ms=AT_MS, lag_ms=3.2, alerts=42).plain
    assert line == " 10:02:03  1,234,567 ticks · 5,500 symbols · 1,833/s · lag 3 ms · 42 alerts"


def test_before_the_first_tick_the_status_line_shows_no_time() -> None:
    assert "--:--:--" in status_line(ticks=0, rate=0, symbols=0, clock_ms=0, lag_ms=0, alerts=0).plain


COUNTS = {"symbols": 1, "clock_ms": AT_MS, "lag_ms": 0.0, "alerts": 0}


def test_the_line_is_redrawn_at_most_five_times_a_second() -> None:
    console, stream, clock = live()
    console.start("http://127.0.0.1:8710")
    console.progress(ticks=100, **COUNTS)  # type: ignore[arg-type]
    clock.now_s += REDRAW_S / 2
    console.progress(ticks=200, **COUNTS)  # type: ignore[arg-type]
    assert "ticks" not in stream.getvalue()
    clock.now_s += REDRAW_S
    console.progress(ticks=300, **COUNTS)  # type: ignore[arg-type]
    console.stop()
    assert "300 ticks" in stream.getvalue()


def test_the_rate_is_that_of_the_last_seconds() -> None:
    console, stream, clock = live()
    console.start("http://127.0.0.1:8710")
    for seconds, ticks in enumerate(
        [1_000_000, 1_000_300, 1_000_300, 1_000_300, 1_000_600, 1_000_600, 1_000_600, 1_000_900]
    ):
        clock.now_s = 101.0 + seconds
        console.progress(ticks=ticks, **COUNTS)  # type: ignore[arg-type]
    console.stop()
    assert stream.getvalue().rstrip().split("·")[-3].strip() == f"{600 / RATE_OVER_S:.0f}/s"


def test_a_search_for_bars_is_a_bar_with_the_time_left() -> None:
    console, stream, clock = live()
    console.start("http://127.0.0.1:8710")
    clock.now_s += REDRAW_S
    console.progress(ticks=1, **COUNTS, warming=Progress(50, 200, "the vendor's history", 31.4))  # type: ignore[arg-type]
    console.stop()
    assert "warming \x1b[36m██░░░░░░░░\x1b[0m 25% 31 s\n" in stream.getvalue()


def test_without_a_terminal_a_search_is_logged_every_ten_seconds(stdout: Stdout) -> None:  # noqa: F811
    log.configure()
    clock = Clock()
    console = LogConsole(clock=clock)
    for _ in range(4):
        console.progress(ticks=10, **COUNTS, warming=Progress(1, 4, "cache and files, 1d"))  # type: ignore[arg-type]
        clock.now_s += LOG_WARMING_S / 2
    told = [json.loads(line) for line in stdout.getvalue().splitlines()]
    assert [(one["event"], one["done"], one["total"]) for one in told] == [("warming", 1, 4)] * 2


def test_start_shows_the_address_and_stop_may_come_twice_or_first() -> None:
    console, stream, _ = live()
    console.stop()
    console.start("http://127.0.0.1:8710")
    console.stop()
    console.stop()
    assert "http://127.0.0.1:8710" in stream.getvalue()


def test_without_a_terminal_alerts_are_json_lines(stdout: Stdout) -> None:  # noqa: F811
    log.configure()
    console = make_console()
    assert isinstance(console, LogConsole)
    console.start("http://127.0.0.1:8710")
    console.alert_fired(alert())
    console.alert_fired(alert(event=Event.PENDING))
    console.stop()
    started, fired = [json.loads(line) for line in stdout.getvalue().splitlines()]
    assert (started["event"], started["listens_on"]) == ("gateway_listening", "http://127.0.0.1:8710")
    assert (fired["event"], fired["type"], fired["id"]) == ("alert_fired", "alert.fire", "al_1")
    assert (fired["symbol"], fired["event_ts"]) == ("600519.SH", "2023-02-01T10:02:03.000+08:00")


def test_without_a_terminal_counts_are_logged_once_a_minute(stdout: Stdout) -> None:  # noqa: F811
    log.configure()
    clock = Clock()
    console = LogConsole(clock=clock)
    for _ in range(3):
        clock.now_s += LOG_EVERY_S / 2
        console.progress(ticks=10, symbols=2, clock_ms=AT_MS, lag_ms=1.0, alerts=1)
    assert [json.loads(line)["event"] for line in stdout.getvalue().splitlines()] == ["progress"]


class Gone(io.StringIO):
    """A terminal whose window can be closed."""

    closed_by_user = False

    def write(self, text: str) -> int:
        if self.closed_by_user:
            raise OSError(5, "Input/output error")
        return super().write(text)


def test_the_daemon_outlives_the_window_it_was_started_in() -> None:
    terminal, clock = Gone(), Clock()
    console = LiveConsole(Screen(file=terminal, force_terminal=True, width=100), clock=clock)
    console.start("http://127.0.0.1:8710")
    terminal.closed_by_user = True
    console.alert_fired(alert())
    clock.now_s += REDRAW_S
    console.progress(ticks=1, symbols=1, clock_ms=AT_MS, lag_ms=0.0, alerts=1)
    console.stop()
    assert "突破" not in terminal.getvalue()
