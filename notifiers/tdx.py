"""Signs for 通达信 (TDX): a user-data file that its lists and formulas show, and a block of the stocks that alerted.

What is written is what public readers and writers of these files agree on; there was no TDX here to try it with.

- `T0002/signals/extern_user.txt`: a line `market|code|number|text|value` for each stock and data number, GBK, CRLF;
  market 0 = Shenzhen, 1 = Shanghai, 2 = Beijing. Formulas read it by EXTERNSTR(1, number), EXTERNVALUE(1, number).
- `T0002/blocknew/NAME.blk`: a line of market and code for each stock, CRLF. The block itself is made in TDX.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import ClassVar, Final

from notifiers.calling import LoneCall, StillBusy
from notifiers.chat import WrittenOptions
from notifiers.errors import DeliveryError
from notifiers.notifier import Bundle, Notification, NotifierOptions, Outcome, Verdict
from notifiers.pacing import Pacing
from notifiers.retry import RetrySchedule
from notifiers.wording import EVENTS, Language, clean
from rules.alert import Alert, Event, shanghai_iso

MARKETS: Final = {"SZ": "0", "SH": "1", "BJ": "2"}
TEXT_BYTES: Final = 120
"""Of a line's text, in GBK: a cell of a list shows no more."""
FILE_BYTES: Final = 64_000_000
"""A larger file is none of ours."""
SCHEDULE: Final = RetrySchedule((0, 1, 5, 30, 120, 300))
_SYMBOL: Final = re.compile(r"(\d{6})\.(SH|SZ|BJ)")
_ENDED: Final = frozenset({Event.RESOLVE, Event.WITHDRAWN, Event.EXPIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxOptions(WrittenOptions):
    """A TDX folder's section.

    signs        path of extern_user.txt, "" = no signs. Lines of other data numbers stay as they are.
    number       data number (数据号) of our lines.
    block        path of a .blk file, "" = no block. Give it one of its own: it keeps the newest stocks alone.
    block_limit  so many stocks at most.
    """

    signs: str = ""
    number: int = 101
    block: str = ""
    block_limit: int = 200


class TdxNotifier:
    """Writes files in a thread of its own (a share may hang), each beside the old one and then in its place.

    An alert that is about no stock has no line to stand in; it is taken, and the outcome says so.
    """

    options_class: ClassVar = TdxOptions

    def __init__(self, options: TdxOptions) -> None:
        """Check the options; raises DeliveryError."""
        if not options.signs and not options.block:
            raise DeliveryError(f"receiver {options.name}: signs or block is needed")
        if not 1 <= options.number <= 9999 or options.block_limit < 1:
            raise DeliveryError(f"receiver {options.name}: number is 1 to 9999, block_limit at least 1")
        self.options: NotifierOptions = options
        self.schedule = SCHEDULE
        self.pacing = Pacing(bundle_alerts=1000)
        self._tdx = options
        self._call = LoneCall[None]("tdx")

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing stays open."""

    async def send(self, notification: Notification) -> Outcome:
        return await self._mark((notification.alert,))

    async def send_bundle(self, bundle: Bundle) -> Outcome:
        """Mark each alert's stock; of several alerts of one stock the last one is shown."""
        return await self._mark(bundle.alerts)

    async def _mark(self, alerts: Sequence[Alert]) -> Outcome:
        stocks = [alert for alert in alerts if _SYMBOL.fullmatch(alert.symbol or "")]
        if not stocks:
            return Outcome(verdict=Verdict.OK, text="about no stock: nothing to mark")
        try:
            await self._call(lambda: self._write(stocks), within_s=self.options.total_timeout_s)
        except TimeoutError:  # before OSError, whose kind it is
            return Outcome(verdict=Verdict.RETRY, text="the file is not written in time")
        except StillBusy:
            return Outcome(verdict=Verdict.RETRY, text="the attempt before this one still lasts")
        except OSError as error:
            text = f"the file can't be written: {error.strerror or type(error).__name__}"
            return Outcome(verdict=Verdict.RETRY, text=text)
        rest = len(alerts) - len(stocks)
        text = f"{len(stocks)} marked" + (f", {rest} about no stock" if rest else "")
        return Outcome(verdict=Verdict.OK, text=text)

    def _write(self, alerts: Sequence[Alert]) -> None:
        tdx = self._tdx
        if tdx.signs:
            lines = _lines(Path(tdx.signs))
            _replace(Path(tdx.signs), signed(lines, alerts, number=tdx.number, language=tdx.language))
        if tdx.block:
            fired = [alert for alert in alerts if alert.event not in _ENDED]
            _replace(Path(tdx.block), listed(_lines(Path(tdx.block)), fired, limit=tdx.block_limit))


def signed(lines: Sequence[bytes], alerts: Sequence[Alert], *, number: int, language: Language) -> list[bytes]:
    """Return the lines of extern_user.txt with these alerts in them, each at its stock's place or at the end."""
    marks: dict[bytes, bytes] = {}
    for alert in alerts:
        place = f"{_market(alert)}|{_code(alert)}|{number}".encode()
        moment = shanghai_iso(alert.ts_event_ms)[11:16]
        value = "0.000" if alert.event in _ENDED else f"{int(moment.replace(':', '')):.3f}"
        marks[place] = b"|".join((place, _text(alert, moment, language), value.encode()))
    placed: list[bytes] = []
    for line in lines:
        place = b"|".join(line.split(b"|", 3)[:3])
        placed.append(marks.get(place, line))
    there = set(placed)
    return [*placed, *(mark for mark in marks.values() if mark not in there)]


def listed(lines: Iterable[bytes], alerts: Sequence[Alert], *, limit: int) -> list[bytes]:
    """Return the lines of a block with these alerts' stocks at its head, the newest first, each once."""
    newest = dict.fromkeys(f"{_market(alert)}{_code(alert)}".encode() for alert in reversed(alerts))
    return list({**newest, **dict.fromkeys(lines)})[:limit]


def _text(alert: Alert, moment: str, language: Language) -> bytes:
    """Return `10:02 触发 brk: message` in GBK, cut between characters; | would end the column."""
    told = f"{moment} {EVENTS[language][alert.event]} {alert.rule} {alert.message}"
    text = clean(told).replace("|", "/")
    while len(encoded := text.encode("gbk", "replace")) > TEXT_BYTES:
        text = text[: TEXT_BYTES if len(text) > TEXT_BYTES else -1]
    return encoded


def _market(alert: Alert) -> str:
    return MARKETS[(alert.symbol or "").rpartition(".")[2]]


def _code(alert: Alert) -> str:
    return (alert.symbol or "").partition(".")[0]


def _lines(path: Path) -> list[bytes]:
    """Read a file's lines that are not empty; [] where there is none. Raises OSError, for a huge one too."""
    try:
        if path.stat().st_size > FILE_BYTES:
            raise OSError(f"larger than {FILE_BYTES} bytes")
        return [line for line in path.read_bytes().splitlines() if line.strip()]
    except FileNotFoundError:
        return []


def _replace(path: Path, lines: Sequence[bytes]) -> None:
    """Write the file anew: beside, then in its place, so that TDX never reads half of it."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as beside:
        try:
            beside.write(b"".join(line + b"\r\n" for line in lines))
            beside.close()
            os.chmod(beside.name, 0o644)
            os.replace(beside.name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside.name)
            raise
