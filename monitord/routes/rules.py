"""The rules in force, and reading their files again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from monitord.routes.route import ApiError, Ask, Route
from rules.errors import RuleError, RuleFileError

if TYPE_CHECKING:
    from rules.rule import Rule


class LegView(BaseModel):
    name: str | None
    when: str
    rearm: str | None


class RuleView(BaseModel):
    """One rule. Durations are ms of its own session clock."""

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

    @classmethod
    def of(cls, rule: Rule) -> RuleView:
        plain = {name: getattr(rule, name) for name in cls.model_fields if name not in ("legs", "labels", "session")}
        legs = [
            LegView(name=leg.name, when=leg.when.text, rearm=None if leg.rearm is None else leg.rearm.text)
            for leg in rule.legs
        ]
        words: dict[str, Any] = {"labels": dict(rule.labels), "session": [str(name) for name in rule.session]}
        return cls(legs=legs, **words, **plain)


class RuleList(BaseModel):
    total: int
    rules: list[RuleView]


class Reloaded(BaseModel):
    rules: int


async def rules(ask: Ask) -> RuleList:
    views = [RuleView.of(rule) for rule in ask.sources.rules.rules().rules]
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
