"""Alerts in words: title and text of one alert or of many, in zh or en, within a receiver's limit, with every id.

What comes from elsewhere (names, messages, labels) is escaped as the receiver's markup needs. What does not fit is left
out and said so; an id never is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, TypeAlias

import orjson

from notifiers.errors import DeliveryError
from rules.alert import Alert, Event, shanghai_iso

Language: TypeAlias = Literal["zh", "en"]

TITLE_CHARACTERS: Final = 64
LINE_CHARACTERS: Final = 80
"""Of a message's text in a line of a digest."""
VALUES: Final = 8
"""Values told of one alert."""
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

EVENTS: Final[dict[Language, dict[Event, str]]] = {
    "zh": {
        Event.PENDING: "待定", Event.FIRE: "触发", Event.RESOLVE: "恢复", Event.SUPPRESSED: "抑制",
        Event.CONFIRMED: "确认", Event.WITHDRAWN: "撤回", Event.NODATA: "断流", Event.FLAPPING: "抖动",
        Event.EXPIRED: "过期",
    },
    "en": {event: str(event) for event in Event},
}  # fmt: skip
_WORDS: Final[dict[Language, dict[str, str]]] = {
    "zh": {
        "many": "{count} 条提醒", "cut": "……(另有 {count} 个字符放不下)", "rest": "另有 {count} 条放不下,编号:",
        "provisional": "盘中未确认", "late": "迟到", "gap": "数据缺口 {gap}", "suppressed": "此前抑制 {count} 次",
    },
    "en": {
        "many": "{count} alerts", "cut": "… ({count} more characters did not fit)",
        "rest": "{count} more did not fit, their ids:", "provisional": "provisional", "late": "late",
        "gap": "gap {gap}", "suppressed": "{count} suppressed before",
    },
}  # fmt: skip


class TooLong(DeliveryError):
    """Not even the ids fit into one message."""


def utf8_bytes(text: str) -> int:
    """Measure as WeCom does."""
    return len(text.encode())


def json_bytes(text: str) -> int:
    """Measure what a text takes inside a JSON body, as limits on the whole body count."""
    return len(orjson.dumps(text)) - 2


def utf16_units(text: str) -> int:
    """Measure as Telegram does."""
    return len(text.encode("utf-16-le")) // 2


def plain(text: str) -> str:
    """Leave a text as it is: nothing in it is special."""
    return text


_LOOKALIKES: Final = str.maketrans("\\`*_[]<>#~|", "\uff3c\uff40\uff0a\uff3f\uff3b\uff3d\uff1c\uff1e\uff03\uff5e\uff5c")


def full_width(text: str) -> str:
    """Replace what is special in any dialect of Markdown by its full-width twin.

    DingTalk and WeCom document no way to escape; *ST华微 twice in a line is bold between, <@all> calls everybody.
    """
    return text.translate(_LOOKALIKES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Markup:
    """How one kind of receiver wants its text.

    limit   the most that `size` may measure of a text.
    title   the title's line, with {} where it stands; None: the title is told apart from the text.
    line    what is between two lines.
    escape  makes others' text harmless.
    """

    limit: int
    size: Callable[[str], int] = utf8_bytes
    title: str | None = "{}"
    line: str = "\n"
    escape: Callable[[str], str] = plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A message in words.

    title   plain, on one line, at most TITLE_CHARACTERS.
    text    marked up, within the limit, with the id of every alert.
    """

    title: str
    text: str


def compose(alerts: Sequence[Alert], markup: Markup, *, language: Language = "zh", keyword: str = "") -> Wording:
    """Tell one alert or many; raises TooLong when their ids alone don't fit.

    keyword: a word the text has to hold, as bots with a keyword check want; "" = none.
    """
    title = title_of(alerts, language)
    if keyword and keyword not in title[:TITLE_CHARACTERS]:  # what is cut off holds nothing for a bot that looks
        title = f"{keyword} {title}"
    title = title[: max(TITLE_CHARACTERS, len(keyword))]
    # The keyword is for a machine to find, so it is not escaped; it comes from the settings.
    shown = keyword.join(map(markup.escape, title.split(keyword))) if keyword else markup.escape(title)
    head = [] if markup.title is None else [markup.title.format(shown)]
    lines = _one(alerts[0], head, markup, language) if len(alerts) == 1 else _many(alerts, head, markup, language)
    return Wording(title=title, text=markup.line.join(lines))


def title_of(alerts: Sequence[Alert], language: Language) -> str:
    """Return what it is about in a line: the one alert, or how many there are of each event."""
    if len(alerts) == 1:
        alert = alerts[0]
        return clean(f"{EVENTS[language][alert.event]} {alert.rule} {_subject(alert)}")
    counts = Counter(alert.event for alert in alerts)
    told = " ".join(f"{EVENTS[language][event]} {counts[event]}" for event in Event if counts[event])
    return f"{_WORDS[language]['many'].format(count=len(alerts))}: {told}"


def clean(text: str) -> str:
    """Return a text on one line without what can't be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def cut(text: str, room: int, markup: Markup, language: Language) -> str:
    """Return the text escaped, or the longest beginning of it with a note that there was more; "" if nothing fits."""
    whole = markup.escape(text)
    if markup.size(whole) <= room:
        return whole
    low, high = 0, len(text)  # invariant: a beginning of `low` characters fits
    while low < high:
        middle = (low + high + 1) // 2
        if markup.size(_shortened(text, middle, markup, language)) <= room:
            low = middle
        else:
            high = middle - 1
    return _shortened(text, low, markup, language) if low else ""


def _shortened(text: str, kept: int, markup: Markup, language: Language) -> str:
    return markup.escape(text[:kept]) + _WORDS[language]["cut"].format(count=len(text) - kept)


def _subject(alert: Alert) -> str:
    return " ".join(part for part in (alert.symbol or alert.group or "", alert.name or "") if part)


def _id(alert: Alert, markup: Markup) -> str:
    """Return the id as it is, for people search for it; one of another making is escaped like any text."""
    return alert.id if _SAFE_ID.fullmatch(alert.id) else markup.escape(clean(alert.id))


def _one(alert: Alert, head: list[str], markup: Markup, language: Language) -> list[str]:
    """Return the lines of one alert: the id is certain, then message, facts and values as far as there is room."""
    last = _id(alert, markup)
    room = markup.limit - markup.size(markup.line.join([*head, last]))
    if room < 0:
        head, room = [], markup.limit - markup.size(last)
    if room < 0:
        raise TooLong(f"the id alone takes {markup.limit - room}, more than {markup.limit}")
    lines: list[str] = []
    for text in (*map(clean, alert.message.splitlines()), _facts(alert, language), _values(alert), _labels(alert)):
        shown = cut(text, room - markup.size(markup.line), markup, language) if text else ""
        if shown:
            lines.append(shown)
            room -= markup.size(shown) + markup.size(markup.line)
    return [*head, *lines, last]


def _facts(alert: Alert, language: Language) -> str:
    """Return when and how: 2023-02-01 10:02:03 · warning · tick, and what is unusual about it."""
    words = _WORDS[language]
    moment = shanghai_iso(alert.ts_event_ms)
    facts = [f"{moment[:10]} {moment[11:19]}", alert.severity, alert.period, alert.leg or ""]
    facts.append(words["provisional"] if alert.provisional else "")
    facts.append(words["late"] if alert.late else "")
    facts.append(words["gap"].format(gap=alert.gap) if alert.gap else "")
    facts.append(words["suppressed"].format(count=alert.suppressed) if alert.suppressed else "")
    facts.append(alert.why or "")
    return clean(" · ".join(fact for fact in facts if fact))


def _values(alert: Alert) -> str:
    shown = list(alert.values.items())[:VALUES]
    return clean(" ".join(f"{name}={'-' if value is None else format(value, '.10g')}" for name, value in shown))


def _labels(alert: Alert) -> str:
    return clean(" ".join(f"{name}={value}" for name, value in alert.labels.items()))


def _many(alerts: Sequence[Alert], head: list[str], markup: Markup, language: Language) -> list[str]:
    """Return a line for each alert as far as there is room, and the ids of all others."""
    lines = [_line(alert, markup, language) for alert in alerts]
    ids = [_id(alert, markup) for alert in alerts]
    gap = markup.size(markup.line)
    used = [markup.size(markup.line.join(head)), *(gap + markup.size(line) for line in lines)]
    after = list(accumulate(used))  # size with so many lines
    if after[-1] <= markup.limit:
        return [*head, *lines]
    rest = [0, *accumulate(markup.size(one) + 1 for one in reversed(ids))]  # size of so many ids at the end
    note = gap * 2 + markup.size(_WORDS[language]["rest"].format(count=len(alerts)))
    sizes = [after[told] + note + rest[len(ids) - told] for told in range(len(ids))]
    # A line is longer than its id, so sizes ascend: what fits is a beginning of them.
    told = bisect_right(sizes, markup.limit) - 1
    if told < 0:
        raise TooLong(f"the ids of {len(ids)} alerts take {sizes[0]}, more than {markup.limit}")
    left = _WORDS[language]["rest"].format(count=len(ids) - told)
    return [*head, *lines[:told], left, " ".join(ids[told:])]


def _line(alert: Alert, markup: Markup, language: Language) -> str:
    message = clean(alert.message)
    message = message if len(message) <= LINE_CHARACTERS else message[: LINE_CHARACTERS - 1] + "…"
    told = (shanghai_iso(alert.ts_event_ms)[11:19], EVENTS[language][alert.event], _subject(alert), alert.rule, message)
    return f"{markup.escape(clean(' '.join(part for part in told if part)))} {_id(alert, markup)}"
