"""The rules in force, and reading their files again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from monitord.routes.route import ApiError, Ask, Route
from rules.bars import PERIOD_MINUTES
from rules.errors import RuleError, RuleFileError
from rules.slots import SLOT_LAYER, SLOT_MS

if TYPE_CHECKING:
    from monitord.warmup import Progress
    from rules.needs import Readiness
    from rules.rule import Rule


class LegView(BaseModel):
    name: str | None
    when: str
    rearm: str | None


class Missing(BaseModel):
    """Bars of a period that the symbol nearest to its first value still lacks."""

    period: str
    bars: int


class Warmth(BaseModel):
    """How far a rule is. state: waiting (none of its symbols has ticked), warming, or ready.

    It is ready with the first of its symbols that is, once nothing is searched: a new listing may never have the bars.
    eta_s: seconds until the search for bars is over, else of trading time until the missing ones are made; null = not
    known, or nothing is missing.
    """

    state: str
    symbols: int
    ready: int
    missing: list[Missing]
    eta_s: float | None

    @classmethod
    def of(cls, found: Readiness, search: Progress | None) -> Warmth:
        missing = [Missing(period=period, bars=bars) for period, bars in found.missing]
        is_warming = found.is_warming and (search is not None or not found.ready)
        state = "waiting" if not found.symbols else "warming" if is_warming else "ready"
        eta_s = search.eta_s if search is not None else max((_trading_s(one) for one in missing), default=None)
        return cls(
            state=state, symbols=found.symbols, ready=found.ready, missing=missing, eta_s=eta_s if missing else None
        )


def _trading_s(missing: Missing) -> float:
    if missing.period == SLOT_LAYER:
        return missing.bars * SLOT_MS / 1000
    days = {"1w": 5, "1mon": 21}.get(missing.period, 1)
    return float(missing.bars * PERIOD_MINUTES[missing.period] * 60 * days)


class RuleView(BaseModel):
    """One rule. Durations are ms of its own session clock. warmth: null for a rule over groups."""

    id: str
    rev: str
    group: str
    severity: str
    labels: dict[str, str]
    legs: list[LegView]
    period: str
    evaluation: str
    mode: str
    session: list[str]
    frequency: str
    cooldown_ms: int | None
    max_per_day: int | None
    expires_ms: int | None
    on_start: str
    file: str
    line: int
    warmth: Warmth | None

    @classmethod
    def of(cls, rule: Rule, warmth: Warmth | None) -> RuleView:
        made = ("legs", "labels", "session", "warmth")
        plain = {name: getattr(rule, name) for name in cls.model_fields if name not in made}
        legs = [
            LegView(name=leg.name, when=leg.when.text, rearm=None if leg.rearm is None else leg.rearm.text)
            for leg in rule.legs
        ]
        words: dict[str, Any] = {"labels": dict(rule.labels), "session": [str(name) for name in rule.session]}
        return cls(legs=legs, warmth=warmth, **words, **plain)


class RuleList(BaseModel):
    total: int
    rules: list[RuleView]


class Reloaded(BaseModel):
    rules: int


async def rules(ask: Ask) -> RuleList:
    source = ask.sources.rules
    found, search = await source.readiness(), source.warming
    warmth = {rule: Warmth.of(one, search) for rule, one in found.items()}
    views = [RuleView.of(rule, warmth.get(rule.id)) for rule in source.rules().rules]
    return RuleList(total=len(views), rules=views)


async def reload(ask: Ask) -> Reloaded:
    control = ask.sources.rules
    try:
        await control.reload()
    except RuleFileError as error:
        findings = [asdict(finding) for finding in error.findings]
        msg = f"{len(findings)} findings; the old rules stay in force"
        raise ApiError(422, "bad_rules", msg, findings=findings) from None
    except (RuleError, OSError) as error:
        raise ApiError(422, "bad_rules", f"{error}; the old rules stay in force", findings=[]) from None
    return Reloaded(rules=len(control.rules().rules))


ROUTES = (
    Route(method="GET", path="/v1/rules", handler=rules, summary="The rules in force", needs="rules", reply=RuleList),
    Route(
        method="POST", path="/v1/rules/reload", handler=reload, needs="rules:reload", reply=Reloaded, errors=(422,),
        summary="Read the rule files again; with a finding the old rules stay in force",
    ),
)  # fmt: skip
