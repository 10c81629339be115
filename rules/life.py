"""The fields of a rule file that say how a rule lives: when it is evaluated, fires, ends and falls silent.

A rule has them, and `defaults:` may; which of them go together is judged for both at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rules import fields
from rules.document import Scalar, Table
from rules.reading import Reader, Reading
from rules.rule import PERIODS, Evaluation, Frequency, Gap, Mode, OnStart

SEVERITIES: Final = ("info", "warning", "critical")
LIFE: Final[dict[str, Reader[Any]]] = {
    "period": fields.one_of("period", PERIODS),
    "eval": fields.choice("eval", Evaluation),
    "mode": fields.choice("mode", Mode),
    "session": fields.sessions,
    "freq": fields.frequency,
    "for": fields.duration_ms,
    "keep_firing": fields.duration_ms,
    "cap": fields.whole(1, 2_000),
    "confirm": fields.one_of("confirm", ("bar_close",)),
    "cooldown": fields.duration_ms,
    "max_per_day": fields.whole(1, 1_000_000),
    "expires": fields.expiry_ms,
    "on_start": fields.choice("on_start", OnStart),
    "gap": fields.choice("gap", Gap),
    "flap": fields.flap,
    "severity": fields.one_of("severity", SEVERITIES),
}
"""Fields that `defaults:` may hold too, with their readers."""
_ARGUMENTS: Final = {
    "eval": "evaluation", "for": "for_ms", "keep_firing": "keep_firing_ms", "cooldown": "cooldown_ms",
    "expires": "expires_ms",
}  # fmt: skip
"""What a field is called in `Rule` where it is not called the same."""


def read_life(reading: Reading, found: Table) -> dict[str, Any]:
    """Read those of these fields that are there."""
    read_all = {key: reading.field(found, key, reader, None) for key, reader in LIFE.items()}
    return {key: value for key, value in read_all.items() if value is not None}


def arguments(lifecycle: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a rule's life says as fields of `Rule`."""
    given = {_ARGUMENTS.get(key, key): value for key, value in lifecycle.items()}
    if "freq" in given:
        given["frequency"], given["step"] = given.pop("freq")
    if "confirm" in given:
        given["confirm"] = True
    if given.get("flap") == "off":
        given["flap"] = None
    return given


def refuse_contradictions(reading: Reading, found: Table, lifecycle: Mapping[str, Any]) -> None:
    """Refuse fields that do not go together; `lifecycle` holds what they say, and what defaults do."""
    state = lifecycle.get("mode") is Mode.STATE
    legs = found.get("legs")
    homes = [found, *(leg for _, leg in legs.pairs if isinstance(leg, Table))] if isinstance(legs, Table) else [found]
    for home in homes if state else (found,):
        for key in ("rearm",) if state else ("for", "keep_firing"):
            if home.get(key) is not None:
                hint = "a state ends when its condition is false" if state else "write mode: state"
                reading.error(home.key(key), f"{key} does not go with mode: {'state' if state else 'edge'}", hint=hint)
    if lifecycle.get("confirm") and (state or lifecycle.get("eval") == Evaluation.BAR_CLOSE):
        hint = "leave it out: there is nothing provisional"
        reading.error(found.get("confirm") or found, "confirm goes with eval: tick and mode: edge", hint=hint)
    if lifecycle.get("period", "tick") != "tick":
        return
    if lifecycle.get("confirm"):
        reading.error(found.get("confirm") or found, "confirm needs bars", hint="set period: to 1m … 1d")
    for key, value, hint in (
        ("eval", Evaluation.BAR_CLOSE, "set period: to 1m … 1d, or leave eval out"),
        ("freq", (Frequency.ONCE_PER_BAR, None), "set period: to 1m … 1d, or use another freq"),
    ):
        if lifecycle.get(key) == value:
            place = found.get(key) or found.get("period") or found
            word = value[0] if isinstance(value, tuple) else value
            reading.error(place, f"{key}: {word} needs bars, and period tick has none", hint=hint)


def refuse_bars(reading: Reading, found: Table, lifecycle: Mapping[str, Any]) -> None:
    """Refuse what is about the bars or prices of one symbol."""
    if lifecycle.get("freq", (None, None))[1] is not None:
        reading.error(found.get("freq") or found, "freq: {step: …} does not go with over", hint="a group has no LAST")
    for key, value in (("eval", Evaluation.BAR_CLOSE), ("freq", (Frequency.ONCE_PER_BAR, None)), ("confirm", None)):
        wrong = lifecycle.get(key) == value if value is not None else key in lifecycle
        if wrong and lifecycle.get("period", "tick") != "tick":
            what = f"{key}: {found.get(key).text}" if isinstance(found.get(key), Scalar) else key  # type: ignore[union-attr]
            place = found.get(key) or found
            reading.error(place, f"{what} does not go with over", hint="groups are looked at once a second")
