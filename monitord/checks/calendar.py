"""Does the trading calendar cover today and what is left of the year?"""

from __future__ import annotations

from typing import Final

from feeds.sessions import Calendar, trade_date
from monitord.checks import Examined, Finding, Verdict, in_thread

DEADLINE_S: Final = 20.0
UPDATE: Final = "update it: pip install --upgrade exchange-calendars (beyond its end Monday to Friday count)"


async def check(examined: Examined) -> Finding:
    """Ask the calendar for today and for December 31st."""
    calendar = await in_thread(Calendar.xshg)
    return judge(calendar, trade_date(examined.now_ms()))


def judge(calendar: Calendar, today: int) -> Finding:
    """Judge what the calendar knows on a date."""
    last = calendar.last_known
    if last is None or not calendar.knows(today):
        return Finding(Verdict.FAIL, f"the calendar ends {last}: it does not know today, {today}", UPDATE)
    year_end = calendar.previous((today // 10_000 + 1) * 10_000 + 101)
    trades = "a trading day" if calendar.is_trading(today) else f"no trading day, the next is {calendar.next(today)}"
    text = f"today, {today}, is {trades}; known to {last}"
    if last < year_end:
        return Finding(Verdict.WARN, f"{text}, before the year's end", UPDATE)
    return Finding(Verdict.OK, text)
