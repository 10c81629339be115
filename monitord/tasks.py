"""`MonitorTask`: one stock watched between prices, and how a task becomes rules.

Entry is the edge into a range, take-profit and stop-loss are edges at a price; `quant_config` adds formulas of one's
own. `check_interval` is the cooldown of all of them but the stop, which nothing delays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from feeds.universe import is_symbol
from monitord.ruletext import RuleField, RuleText, rule_text
from notifiers.orders import TRADE_LABEL
from notifiers.routing import DELIVER_LABEL, NEVER

ENTRY, TAKE, STOP, CONDITION = "entry", "take_profit", "stop_loss", "condition"
SIDES: Final = {ENTRY: "buy", TAKE: "sell", STOP: "sell"}
"""What is traded where, if auto_trade is on."""
MOST_CONDITIONS: Final = 20


def _symbol(value: Any) -> Any:
    if isinstance(value, str) and not is_symbol(value):
        raise ValueError(f"{value[:40]!r} is no symbol: six digits and .SH, .SZ or .BJ")
    return value


StockCode = Annotated[str, BeforeValidator(_symbol), Field(examples=["600519.SH"])]
Price = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=100)]
Formula = Annotated[str, Field(min_length=1, max_length=10_000)]


class Condition(BaseModel):
    """A condition of one's own. when, rearm: formulas as in a rule file; period: the bars they are about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    when: Formula
    rearm: Formula | None = None
    severity: Literal["info", "warning", "critical"] = "info"
    period: Literal["tick", "1m", "5m", "15m", "30m", "60m", "1d", "1w", "1mon"] = "tick"


def _listed(value: Any) -> Any:
    """Read one condition alone, or none, as a list."""
    return [] if value is None else [value] if isinstance(value, Mapping) else value


Conditions = Annotated[
    list[Condition],
    Field(max_length=MOST_CONDITIONS),
    BeforeValidator(_listed, json_schema_input_type=list[Condition] | Condition | None),
]


def _wrong(field: str, why: str) -> PydanticCustomError:
    return PydanticCustomError("task", "{why}", {"field": field, "why": why})


class TaskTerms(BaseModel):
    """What somebody wants watched. Prices are absolute, in yuan; check_interval in seconds.

    auto_trade: entries, take-profits and stops become order intents as well, where the settings allow it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_name: Name = ""
    stock_code: StockCode
    stock_name: Name = ""
    check_interval: Annotated[int, Field(ge=1, le=86_400)] = 60
    auto_trade: bool = False
    trading_hours_only: bool = True
    entry_min: Price | None = None
    entry_max: Price | None = None
    take_profit: Price | None = None
    stop_loss: Price | None = None
    notification_enabled: bool = True
    quant_config: Conditions = []

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, given: Any) -> Any:
        """Take null for what a field is without anybody's word: the forms of the old front end send it."""
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value is not None or key not in TaskTerms.model_fields}

    @model_validator(mode="after")
    def _can_be(self) -> TaskTerms:
        if (self.entry_min is None) != (self.entry_max is None):
            missing = "entry_min" if self.entry_min is None else "entry_max"
            raise _wrong(missing, "entry_min and entry_max go together")
        if self.entry_min is not None and self.entry_max is not None and self.entry_min > self.entry_max:
            raise _wrong("entry_max", "entry_max is below entry_min")
        if self.take_profit is not None and self.stop_loss is not None and self.stop_loss >= self.take_profit:
            raise _wrong("stop_loss", "stop_loss is not below take_profit")
        if self.entry_min is None and self.take_profit is None and self.stop_loss is None and not self.quant_config:
            why = "there is nothing to watch: give entry_min and entry_max, take_profit, stop_loss or quant_config"
            raise _wrong("entry_min", why)
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorTask:
    """One task. started_ms, stopped_ms: Unix ms of the newest start and stop, None = none yet."""

    id: int
    terms: TaskTerms
    running: bool = False
    created_ms: int = 0
    updated_ms: int = 0
    started_ms: int | None = None
    stopped_ms: int | None = None

    @property
    def symbol(self) -> str:
        return self.terms.stock_code

    @property
    def status(self) -> Literal["running", "stopped"]:
        return "running" if self.running else "stopped"

    @property
    def channel(self) -> str:
        """The gateway's channel of the task."""
        return f"task:{self.id}"

    @property
    def rule_ids(self) -> tuple[str, ...]:
        """The ids of its rules, in order."""
        return tuple(f"task-{self.id}.{name}" for name, _ in _named_rules(self))

    def text(self) -> RuleText:
        """Return its rules as a rule file."""
        rules = [fields for _, fields in _named_rules(self)]
        return rule_text(f"task/{self.id}", self.terms.task_name or f"task {self.id}", rules)


_TOLD: Final[Mapping[str, Mapping[str, str]]] = {
    ENTRY: {
        "zh": "{{name}} 进入买入区间 {0}～{1}：{{LAST:.2f}}",
        "en": "{{name}} within entry {0} to {1}: {{LAST:.2f}}",
    },
    TAKE: {"zh": "{{name}} 达到止盈价 {0}：{{LAST:.2f}}", "en": "{{name}} at take-profit {0}: {{LAST:.2f}}"},
    STOP: {"zh": "{{name}} 触及止损价 {0}：{{LAST:.2f}}", "en": "{{name}} at stop-loss {0}: {{LAST:.2f}}"},
    CONDITION: {"zh": "{{name}} 条件 {0} 成立：{{LAST:.2f}}", "en": "{{name}} condition {0} is true: {{LAST:.2f}}"},
}
_SEVERITY: Final = {ENTRY: "info", TAKE: "warning", STOP: "critical"}


def _named_rules(task: MonitorTask) -> Iterator[tuple[str, Sequence[RuleField]]]:
    """Yield each rule of a task by what its id ends in."""
    terms = task.terms
    if terms.entry_min is not None and terms.entry_max is not None:
        low, high = _number(terms.entry_min), _number(terms.entry_max)
        yield ENTRY, _rule(task, ENTRY, when=f"BETWEEN(LAST,{low},{high})", origin="entry_min", told=(low, high))
    if terms.take_profit is not None:
        price = _number(terms.take_profit)
        yield TAKE, _rule(task, TAKE, when=f"LAST >= {price}", origin="take_profit", told=(price,))
    if terms.stop_loss is not None:
        price = _number(terms.stop_loss)
        yield STOP, _rule(task, STOP, when=f"LAST <= {price}", origin="stop_loss", told=(price,))
    for number, condition in enumerate(terms.quant_config, 1):
        name, place = f"{CONDITION}-{number}", f"quant_config.{number - 1}"
        yield (
            name,
            [
                *_rule(task, name, when=condition.when, origin=f"{place}.when", told=(str(number),)),
                RuleField("rearm", condition.rearm, f"{place}.rearm"),
                RuleField("period", condition.period, f"{place}.period"),
                RuleField("severity", condition.severity, f"{place}.severity"),
            ],
        )


def _rule(task: MonitorTask, name: str, *, when: str, origin: str, told: Sequence[str]) -> list[RuleField]:
    """Return a rule's fields; one of KINDS has its own severity, a condition gets it from its user."""
    terms, kind = task.terms, name.partition("-")[0]
    labels = {"task": str(task.id), "task_event": kind}
    if terms.task_name:
        labels["task_name"] = terms.task_name
    if not terms.notification_enabled:
        labels[DELIVER_LABEL] = NEVER
    if terms.auto_trade and kind in SIDES:
        labels[TRADE_LABEL] = SIDES[kind]
    return [
        RuleField("id", f"task-{task.id}.{name}", origin),
        RuleField("select", [task.symbol], "stock_code"),
        RuleField("when", when, origin),
        RuleField("session", "continuous" if terms.trading_hours_only else "all_trading", "trading_hours_only"),
        RuleField("freq", "always", "check_interval"),
        RuleField("cooldown", None if kind == STOP else f"{terms.check_interval}s", "check_interval"),
        # What is true already when somebody starts a task is what he has to know first.
        RuleField("on_start", "fire", origin),
        RuleField("severity", _SEVERITY.get(kind), origin),
        RuleField("labels", labels, "task_name"),
        RuleField("message", {tongue: text.format(*told) for tongue, text in _TOLD[kind].items()}, origin),
    ]


def _number(price: float) -> str:
    """Write a price as a formula's number."""
    return format(price, ".12g")
