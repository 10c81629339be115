"""What a rule test expects against what came: which entries hold, a diff for people, and `expect` written anew.

The expectation is the complete list, in order. An entry holds for an event if everything it names is so; where lists
differ they are aligned to keep as many pairs as can be, so that one event too many shows as one line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final, TypeAlias

from feeds.sessions import date_text
from rules.alert import Alert, shanghai_iso
from rules.document import Listing
from rules.message import number_text
from rules.testcase import EVENT_KEYS, TICK_COLUMNS, Case, Expected, Suite

Plain: TypeAlias = str | float | bool | None
TOLERANCE: Final = 1e-9
MOST_PAIRS: Final = 1_000_000
"""Pairs of entry and event that are looked at, a second's work; longer lists that differ are shown in turn."""
_MISSING: Final = "(no such value)"
_ALWAYS: Final = ("at", "event")
_WHERE_SET: Final = ("leg", "why", "gap", "late", "provisional")
"""Named by an entry that --update writes, where they say something."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the comparison: both = they hold for each other, one alone = it is missing or extra."""

    expected: Expected | None
    got: Alert | None


def compare(case: Case, events: Sequence[Alert]) -> tuple[Step, ...]:
    """Align the events with what is expected of them."""
    wanted = case.expect
    head = 0
    while head < min(len(wanted), len(events)) and holds(wanted[head], events[head], case):
        head += 1
    tail = 0
    while tail < min(len(wanted), len(events)) - head and holds(wanted[-1 - tail], events[-1 - tail], case):
        tail += 1
    last_wanted, last_event = len(wanted) - tail, len(events) - tail
    return (
        *map(Step, wanted[:head], events[:head]),
        *_aligned(wanted[head:last_wanted], events[head:last_event], case),
        *map(Step, wanted[last_wanted:], events[last_event:]),
    )


def _aligned(wanted: Sequence[Expected], events: Sequence[Alert], case: Case) -> Iterator[Step]:
    """Yield the longest common sequence, what is missing before what is extra between its pairs."""
    n, m = len(wanted), len(events)
    if n * m > MOST_PAIRS:
        yield from (Step(expected, None) for expected in wanted)
        yield from (Step(None, event) for event in events)
        return
    same = [[holds(expected, event, case) for event in events] for expected in wanted]
    best = [[0] * (m + 1) for _ in range(n + 1)]
    for i in range(n - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            best[i][j] = 1 + best[i + 1][j + 1] if same[i][j] else max(best[i + 1][j], best[i][j + 1])
    i = j = 0
    while i < n or j < m:
        if i < n and j < m and same[i][j]:
            yield Step(wanted[i], events[j])
            i, j = i + 1, j + 1
        elif j >= m or (i < n and best[i + 1][j] >= best[i][j + 1]):
            yield Step(wanted[i], None)
            i += 1
        else:
            yield Step(None, events[j])
            j += 1


def holds(expected: Expected, event: Alert, case: Case) -> bool:
    """Tell whether everything the entry names is so."""
    return not any(_differs(key, value, event, case) for key, value in expected.named.items())


def _differs(key: str, value: Plain, event: Alert, case: Case) -> bool:
    got = shown_time(event, case) if key == "at" and " " not in str(value) else named(event, key)
    if isinstance(value, float) and isinstance(got, int | float):
        return abs(value - got) > TOLERANCE * max(1.0, abs(value), abs(got))
    if isinstance(value, float) and isnan(value):
        return got is not None
    return value != got


def named(event: Alert, key: str) -> Plain:
    """Return what an event holds under a key of `expect`."""
    if key == "at":
        return f"{date_text(event.ts_event_ms)} {_clock(event)}"
    if key == "date":
        return event.trade_date
    if key == "event":
        return str(event.event)
    if key in EVENT_KEYS:
        value: Plain = getattr(event, key)
        return value
    if key in event.values:
        return event.values[key]
    column = TICK_COLUMNS.get(key)
    if column is not None and event.tick is not None and column in event.tick:
        return event.tick[column]
    return _MISSING


def shown_time(event: Alert, case: Case) -> str:
    """Return the time of an event as `expect` writes it without a date."""
    return _clock(event)


def _clock(event: Alert) -> str:
    return clock_text(event.ts_event_ms)


def clock_text(ts_ms: int) -> str:
    """Return the Shanghai time of day: 10:00:03, with .mmm where the ms are not 0."""
    return shanghai_iso(ts_ms)[11:23].removesuffix(".000")


# ── for people ────────────────────────────────────────────────────────────────────────────────────────────────────


def diff(steps: Sequence[Step], case: Case) -> list[str]:
    """Return the comparison as lines: `-` expected and missing, `+` came and is not expected, with what was wrong."""
    lines: list[str] = []
    for place, step in enumerate(steps):
        if step.expected is not None and step.got is not None:
            lines.append(f"    {_entry_text(step.expected)}")
        elif step.expected is not None:
            near = _near(steps, place, case)
            lines.append(f"  - {_entry_text(step.expected)}" + ("" if near is None else f"    {near}"))
        elif step.got is not None:
            lines.append(f"  + {event_text(step.got, case)}")
    return _folded(lines)


def _near(steps: Sequence[Step], place: int, case: Case) -> str | None:
    """Say what is wrong with the event that was likely meant: the nearest unexpected one of the same kind or time."""
    expected = steps[place].expected
    assert expected is not None
    best: tuple[int, str] | None = None
    for step in steps[max(0, place - 10) : place + 10]:
        if step.expected is not None or step.got is None:
            continue
        wrong = [key for key, value in expected.named.items() if _differs(key, value, step.got, case)]
        if len(wrong) < len(expected.named) and (best is None or len(wrong) < best[0]):
            said = (f"{key} is {_plain(_got(step.got, key, case))}" for key in wrong)
            best = len(wrong), ", ".join(said)
    return None if best is None or best[0] > 2 else f"← {best[1]}"


def _got(event: Alert, key: str, case: Case) -> Plain:
    return shown_time(event, case) if key == "at" else named(event, key)


def _folded(lines: list[str]) -> list[str]:
    """Leave out long stretches that hold."""
    shown: list[str] = []
    near = [any(other[2] in "-+" for other in lines[max(0, i - 3) : i + 4]) for i in range(len(lines))]
    for i, line in enumerate(lines):
        if near[i]:
            shown.append(line)
        elif not shown or shown[-1] != "    …":
            shown.append("    …")
    return shown


def _entry_text(expected: Expected) -> str:
    named_here = dict(expected.named)
    head = f"{named_here.pop('at')} {named_here.pop('event')}"
    return " ".join([head, *(f"{key}={_plain(value)}" for key, value in named_here.items())])


def event_text(event: Alert, case: Case) -> str:
    """Return an event in a line: time, event, where it happened, what it says, its values."""
    parts = [_clock(event), str(event.event)]
    if len(case.rules) != 1:
        parts.append(f"rule={event.rule}")
    if len(case.symbols) != 1 and event.symbol is not None:
        parts.append(f"symbol={event.symbol}")
    parts += [f"{key}={_plain(named(event, key))}" for key in _WHERE_SET if named(event, key) not in (None, False)]
    parts += [f"{key}={_plain(value)}" for key, value in event.values.items()]
    return " ".join(parts)


def _plain(value: Plain) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else number_text(value)


# ── written anew ──────────────────────────────────────────────────────────────────────────────────────────────────


def updated(suite: Suite, compared: Sequence[tuple[Case, Sequence[Step]]]) -> str:
    """Return the file's text with the `expect` of these cases as it came out; all else, comments too, stays."""
    text = suite.text.removeprefix("\ufeff")
    for case, steps in sorted(compared, key=lambda pair: pair[0].expect_place.start, reverse=True):
        if any(step.expected is None or step.got is None for step in steps):
            text = _rewritten(text, case, steps)
    return suite.text[: len(suite.text) - len(suite.text.removeprefix("\ufeff"))] + text


def _rewritten(text: str, case: Case, steps: Sequence[Step]) -> str:
    place = case.expect_place
    assert isinstance(place, Listing)
    if not place.entries or text[place.start] == "[":
        return _in_place_of_flow(text, case, place, steps)
    return _in_block(text, case, place, steps)


def _in_place_of_flow(text: str, case: Case, place: Listing, steps: Sequence[Step]) -> str:
    """Replace `[…]` by an entry a line, indented as the key it stands behind."""
    line = text.rfind("\n", 0, place.start) + 1
    before = text[line : place.start]
    indent = " " * (len(before) - len(before.lstrip(" -")))
    entries = [_line(step, case) for step in steps if step.got is not None]
    if not entries:
        return text[: place.start] + "[]" + text[place.end :]
    head = text[: place.start].rstrip(" ")
    tail = text[place.end :]
    rest = tail[: tail.find("\n")] if "\n" in tail else tail  # a comment behind the list stays behind the key
    return head + rest + "".join(f"\n{indent}- {entry}" for entry in entries) + tail[len(rest) :]


def _in_block(text: str, case: Case, place: Listing, steps: Sequence[Step]) -> str:
    """Replace lines of entries that do not hold, and put lines for events that came besides."""
    first = place.entries[0]
    line = text.rfind("\n", 0, first.start) + 1
    indent = text[line : text.index("-", line)]
    edits: list[tuple[int, int, str]] = []
    after = line
    for step in steps:
        if step.expected is not None:
            start, end = _lines_of(text, step.expected)
            if step.got is None:
                edits.append((start, end, ""))
            after = end
        else:
            lead = "" if after == 0 or text[after - 1] == "\n" else "\n"
            edits.append((after, after, f"{lead}{indent}- {_line(step, case)}" + ("" if lead else "\n")))
    if not any(step.got is not None for step in steps):
        edits = [(text.rindex(":", 0, line) + 1, line, " []\n"), *edits]
    for start, end, new in reversed(_joined(edits)):
        text = text[:start] + new + text[end:]
    return text


def _joined(edits: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Join edits at one place, so that they can be made from the end of the text backwards."""
    joined: list[tuple[int, int, str]] = []
    for start, end, new in edits:
        if joined and start == joined[-1][1] and start == end:
            joined[-1] = joined[-1][0], joined[-1][1], joined[-1][2] + new
        else:
            joined.append((start, end, new))
    return joined


def _lines_of(text: str, entry: Expected) -> tuple[int, int]:
    """Return where the whole lines of an entry begin and end; a block entry's last line may lie before its end."""
    end = len(text[: entry.end].rstrip())
    newline = text.find("\n", end)
    return text.rfind("\n", 0, entry.start) + 1, len(text) if newline < 0 else newline + 1


def _line(step: Step, case: Case) -> str:
    """Return an event as a line of `expect`: the keys its neighbours name, and those that say something."""
    event = step.got
    assert event is not None
    keys = list(_ALWAYS)
    keys += ["rule"] if len(case.rules) != 1 else []
    keys += ["symbol"] if len(case.symbols) != 1 and event.symbol is not None else []
    keys += [key for key in _WHERE_SET if named(event, key) not in (None, False)]
    keys += [key for key in _value_keys(case) if named(event, key) != _MISSING]
    pairs = (f"{_quoted_key(key)}: {_yaml(_got(event, key, case))}" for key in dict.fromkeys(keys))
    return "{" + ", ".join(pairs) + "}"


def _value_keys(case: Case) -> Collection[str]:
    """Return the values that entries of this case name; LAST where there are none yet."""
    keys = [key for expected in case.expect for key in expected.named if key not in EVENT_KEYS]
    return dict.fromkeys(keys or ["LAST"])


def _quoted_key(key: str) -> str:
    return key if key.isidentifier() else f'"{key}"'


def _yaml(value: Plain) -> str:
    if isinstance(value, str):
        plain = value.isidentifier() and value.lower() not in (
            "y",
            "n",
            "yes",
            "no",
            "on",
            "off",
            "true",
            "false",
            "null",
        )
        return value if plain else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return _plain(value)
