"""Rule files: YAML text → checked, frozen rules, with every error of every file at once.

Pure: it takes texts by name and reads no files. `RuleSet.source` holds those texts, so a set can be made again from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import orjson

from rules import fields, over
from rules.catalog.shipped import ShippedRule, shipped_rules
from rules.document import Document, Scalar, Table, Value, read
from rules.errors import Finding, RuleError, RuleFileError
from rules.functions.function import Function
from rules.functions.registry import FUNCTIONS
from rules.language.checker import check
from rules.language.parser import parse
from rules.language.syntax import did_you_mean
from rules.language.tree import Formula, walk
from rules.language.words import MARKET, SPELLINGS, Scope, Word
from rules.life import LIFE, arguments, read_life, refuse_bars, refuse_contradictions
from rules.meaning import revision, threshold_operands, value_exprs
from rules.message import Template
from rules.messages import DEFAULT_LANGUAGE, Language, read_messages
from rules.parameters import Parameters, blamed, names_in, parameters, put_in, unknown, unused
from rules.reading import Reading
from rules.rule import Aggregate, By, Evaluation, Frequency, Leg, Mode, OnStart, Over, Rule, RuleSet
from rules.selector import Selector
from rules.share import Share

__all__ = ["from_source", "load", "value_exprs"]

SOURCE_VERSION: Final = 1
KEPT: Final = 1024
"""Files whose rules are kept for the next reading: those of so many tasks."""
KEPT_LONGEST: Final = 32_768
"""Characters of such a file at most: a task's has 1,400."""
_OF_THE_CATALOG: Final = ("period", "eval", "mode", "confirm")
"""Fields of a shipped rule that belong to its formulas, and stay as they are where it is used."""
_USE_FIELDS: Final = (
    "id", "use", "params", "select", "labels", "message", *(key for key in LIFE if key not in _OF_THE_CATALOG),
)  # fmt: skip
_NO_AGE: Final = "a rule is looked at when its symbol ticks, and FEED_AGE is next to 0 then"
_AGE: Final = "make a rule over groups: over: all, agg: {k: count(FEED_AGE > 60)}, when: k > 0"
_RULE_FIELDS: Final = (
    "id", "use", "params", "select", "over", "agg", "min_valid", "when", "rearm", "legs", "labels", "message",
    *LIFE,
)  # fmt: skip


def load(
    texts: Mapping[str, str],
    *,
    functions: Mapping[str, Function] = FUNCTIONS,
    language: str = DEFAULT_LANGUAGE,
    share: Share | None = None,
) -> RuleSet:
    """Read rule files given as name → text, in that order; `language`, zh or en, is that of messages.

    share: keep only these rules; all are checked.

    Raises RuleFileError with the findings of all files; lints are in the set's `warnings`.
    """
    errors: list[Finding] = []
    warnings: list[Finding] = []
    rules: list[Rule] = []
    ids: dict[str, str] = {}
    for file, text in texts.items():
        known = _alone(text, file, Language(language)) if functions is FUNCTIONS and len(text) <= KEPT_LONGEST else None
        if known is not None and ids.keys().isdisjoint(known.ids):  # else there is more to say of it
            ids.update(known.ids)
            rules += known.rules
            errors += known.errors
            warnings += known.warnings
            continue
        document = Document(text.removeprefix("\ufeff"), file)
        rules.extend(_FileReader(document, functions, ids, Language(language)).rules())
        errors += _in_order(document.errors)
        warnings += _in_order(document.warnings)
    if errors:
        raise RuleFileError(errors)
    kept = rules if share is None else [rule for rule in rules if share.takes(rule.id)]
    return RuleSet(tuple(kept), _source(texts, language, share), tuple(warnings))


@dataclass(frozen=True, slots=True)
class _Alone:
    """What is in one file, whatever stands beside it. ids: rule id → file:line."""

    rules: tuple[Rule, ...]
    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    ids: Mapping[str, str]


@lru_cache(maxsize=KEPT)
def _alone(text: str, file: str, language: Language) -> _Alone:
    """Read one file by itself.

    Kept, for each change of one task reads the files of all: 12 ms of processor time each, nearly all of it YAML.
    """
    document, ids = Document(text.removeprefix("\ufeff"), file), dict[str, str]()
    rules = tuple(_FileReader(document, FUNCTIONS, ids, language).rules())
    errors, warnings = tuple(_in_order(document.errors)), tuple(_in_order(document.warnings))
    return _Alone(rules, errors, warnings, MappingProxyType(ids))


def from_source(source: str, *, functions: Mapping[str, Function] = FUNCTIONS) -> RuleSet:
    """Make the rule set again from its `source`. Raises RuleError if this is none, RuleFileError for bad rules."""
    try:
        record = orjson.loads(source)
        version, texts, language = record["v"], dict(record["files"]), record.get("language", DEFAULT_LANGUAGE)
        share = Share.parse(record["share"]) if "share" in record else None
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise RuleError(f"not the source of a rule set: {error}") from None
    if version != SOURCE_VERSION or not all(isinstance(text, str) for pair in texts.items() for text in pair):
        raise RuleError(f"rule set source version {version!r}, this program reads {SOURCE_VERSION}")
    if language not in tuple(Language):
        raise RuleError(f"rule set source in the language {language!r}, this program has {', '.join(Language)}")
    return load(texts, functions=functions, language=language, share=share)


def _source(texts: Mapping[str, str], language: str, share: Share | None) -> str:
    record: dict[str, Any] = {"v": SOURCE_VERSION, "files": list(texts.items())}
    if language != DEFAULT_LANGUAGE:
        record["language"] = language
    if share is not None:
        record["share"] = str(share)
    return orjson.dumps(record).decode()


def _in_order(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: (finding.line, finding.column))


@dataclass(frozen=True, slots=True)
class _Group:
    """What the rules of a group share."""

    name: str
    labels: Mapping[str, str]
    defaults: Mapping[str, Any]


class _FileReader:
    """Reads one file's rules; errors and lints go to the document. ids: every rule id met so far → file:line.

    given: parameters that a user of a shipped rule sets; they replace the rule's own.
    """

    def __init__(
        self,
        document: Document,
        functions: Mapping[str, Function],
        ids: dict[str, str],
        language: Language,
        *,
        given: Parameters = MappingProxyType({}),
    ) -> None:
        self._document = document
        self._reading = Reading(document)
        self._language = language
        self._functions = functions
        self._ids = ids
        self._words: Mapping[str, Word] = MARKET
        """What the formulas of the rule being read may name without defining it."""
        self._over: Over | None = None
        """What makes the rule being read one over groups."""
        self._given = given
        self._parameters: Parameters = {}
        """Parameters of the rule being read."""
        self._named: set[str] = set()
        """Names that its formulas and messages use."""

    def rules(self) -> Iterator[Rule]:
        """Yield the good rules in order."""
        document = self._document
        root = read(document)
        top = None if root is None else self._reading.tried(fields.table, document, root, "a rule file")
        if top is None:
            return
        self._reading.refuse_unknown(top, ("version", "defaults", "groups"), "a rule file")
        self._version(top)
        defaults = self._defaults(top)
        groups = top.get("groups")
        if groups is None:
            self._reading.error(
                top, "groups is missing", hint="rules stand in groups: [{name: …, rules: […]}]", width=1
            )
            return
        for group in self._reading.entries(groups):
            yield from self._group(group, defaults)

    def _version(self, top: Table) -> None:
        version = top.get("version")
        if version is None:
            self._reading.error(top, "version is missing", hint="begin with version: 1", width=1)
        elif not (isinstance(version, Scalar) and version.text == "1" and not version.style):
            self._reading.error(version, "this program reads version 1", hint="write version: 1")

    def _defaults(self, top: Table) -> dict[str, Any]:
        value = top.get("defaults")
        found = None if value is None else self._reading.tried(fields.table, self._document, value, "defaults")
        if found is None:
            return {}
        self._reading.refuse_unknown(found, tuple(LIFE), "defaults")
        return read_life(self._reading, found)

    def _group(self, value: Value, defaults: Mapping[str, Any]) -> Iterator[Rule]:
        document = self._document
        found = self._reading.tried(fields.table, document, value, "a group")
        if found is None:
            return
        self._reading.refuse_unknown(found, ("name", "labels", "rules"), "a group")
        name = self._reading.field(found, "name", fields.text, "")
        group = _Group(name, self._reading.field(found, "labels", fields.labels, {}), defaults)
        if not name and found.get("name") is None:
            self._reading.error(found, "a group needs a name", hint="write name: …", width=1)
        rules = found.get("rules")
        if rules is None:
            self._reading.error(found, "a group needs rules", hint="write rules: […]", width=1)
            return
        for entry in self._reading.entries(rules):
            rule = self._rule(entry, group)
            if rule is not None:
                yield rule

    # ── one rule ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _rule(self, value: Value, group: _Group) -> Rule | None:
        """Read a rule; None if there is any error in it. Its findings get its id."""
        document = self._document
        errors, warnings = len(document.errors), len(document.warnings)
        found = self._reading.tried(fields.table, document, value, "a rule")
        if found is None:
            return None
        is_use = found.get("use") is not None
        self._reading.refuse_unknown(
            found, _USE_FIELDS if is_use else _RULE_FIELDS, "a rule with use" if is_use else "a rule"
        )
        rule_id = self._id(found)
        assemble = self._use if is_use else self._assemble
        rule = assemble(found, group, rule_id, good=lambda: len(document.errors) == errors)
        for findings, start in ((document.errors, errors), (document.warnings, warnings)):
            findings[start:] = [replace(finding, rule=rule_id or None) for finding in findings[start:]]
        return rule

    def _assemble(self, found: Table, group: _Group, rule_id: str, *, good: Callable[[], bool]) -> Rule | None:
        lifecycle = {**group.defaults, **read_life(self._reading, found)}
        refuse_contradictions(self._reading, found, lifecycle)
        own: Parameters = self._reading.field(found, "params", parameters, {})
        self._parameters, self._named = {**own, **self._given}, set()
        period = lifecycle.get("period", "tick")
        self._words, self._over = MARKET, None
        select = self._scope(found, lifecycle)
        if select is not None and select.book is not None:
            self._words = SPELLINGS
            lifecycle.setdefault("on_start", OnStart.FIRE)
        legs = self._legs(found, period)
        messages = self._messages(found, legs, period)
        labels = {**group.labels, **self._reading.field(found, "labels", fields.labels, {})}
        if not good() or select is None:
            return None
        rule = Rule(
            id=rule_id, rev="", legs=legs, select=select, over=self._over, labels=labels, messages=messages,
            group=group.name, file=self._document.file, line=self._document.line(found.start),
            **arguments(lifecycle),
        )  # fmt: skip
        self._lint_threshold(rule, found)
        self._document.warnings += unused(self._document, own, self._named)
        return replace(rule, rev=revision(rule))

    def _scope(self, found: Table, lifecycle: Mapping[str, Any]) -> Selector | None:
        """Read what the rule watches: `select`, or the members of `over` with their aggregates."""
        given = found.get("over")
        if given is None:
            for key in ("agg", "min_valid"):
                if found.get(key) is not None:
                    self._over = Over(By.NONE, (), over.MIN_VALID)
                    self._reading.error(
                        found.key(key), f"{key} goes with over", hint="write over: all, or a choice of members"
                    )
            return self._reading.required(found, "select", fields.selector)
        if found.get("select") is not None:
            self._reading.error(
                found.key("select"), "select and over can't stand together", hint="over chooses the members"
            )
        refuse_bars(self._reading, found, lifecycle)
        members = self._reading.tried(over.members, self._document, given)
        by = By.NONE if members is None else members[1]
        share = self._reading.field(found, "min_valid", over.min_valid, over.MIN_VALID)
        period = lifecycle.get("period", "tick")

        def read(document: Document, value: Value) -> tuple[Aggregate, ...]:
            return over.aggregates(
                document, value, by=by, period=period, functions=self._functions, prepare=self._put_in
            )

        aggregates = self._reading.required(found, "agg", read)
        self._over = Over(by, aggregates or (), share)
        self._words = over.words_of(aggregates or ())
        return None if members is None or aggregates is None else members[0]

    def _use(self, found: Table, group: _Group, rule_id: str, *, good: Callable[[], bool]) -> Rule | None:
        """Read a rule that uses a shipped one: what stands beside `use` replaces what the shipped one says."""
        shipped = self._reading.required(found, "use", _shipped)
        given: Parameters = self._reading.field(found, "params", parameters, {})
        rule = None if shipped is None else self._shipped_rule(shipped, found, given)
        if rule is None:
            return None
        life = read_life(self._reading, found)
        refuse_contradictions(
            self._reading, found, {"mode": rule.mode, "period": rule.period, "eval": rule.evaluation, **life}
        )
        labels = {**group.labels, **rule.labels, **self._reading.field(found, "labels", fields.labels, {})}
        messages = {**rule.messages, **self._messages(found, rule.legs, rule.period)}
        select = self._reading.field(found, "select", fields.selector, rule.select)
        if not good():
            return None
        rule = replace(
            rule, id=rule_id, select=select, labels=labels, messages=messages, group=group.name,
            file=self._document.file, line=self._document.line(found.start), **arguments(life),
        )  # fmt: skip
        return replace(rule, rev=revision(rule))

    def _shipped_rule(self, shipped: ShippedRule, found: Table, given: Parameters) -> Rule | None:
        """Read the shipped rule with these parameters; what they break is told where they stand."""
        reader = _FileReader(shipped.document(), self._functions, {}, self._language, given=given)
        own: Parameters = reader._reading.field(shipped.rule, "params", parameters, {})
        params = found.get("params")
        if params is not None:
            self._document.errors += [
                finding for error in unknown(self._document, params, own, given) for finding in error.findings
            ]
        labels: Mapping[str, str] = reader._reading.field(shipped.group, "labels", fields.labels, {})
        rule = reader._rule(shipped.rule, _Group("", labels, {}))
        for finding in reader._document.errors:
            blame = blamed(finding.source, finding.column, finding.width, given)
            place = blame.place if blame is not None else params or found
            hint = f"{finding.hint}; {shipped.id} is {finding.file}:{finding.line}"
            what = "" if blame is None else f"{blame.written} = {blame.place.text}: "
            self._reading.error(place, what + finding.message, hint=hint)
        self._words, self._parameters = MARKET, reader._parameters
        return rule

    def _id(self, found: Table) -> str:
        """Read `id`, which for a used rule is that of the shipped one if there is none."""
        value = found.get("id") or found.get("use")
        if value is None:
            self._reading.error(found, "a rule needs an id", hint="write id: …", width=1)
            return ""
        rule_id = self._reading.tried(fields.rule_id, self._document, value) or ""
        if rule_id in self._ids:
            self._reading.error(
                value, f"rule id {rule_id!r} is used twice", hint=f"it is already in {self._ids[rule_id]}"
            )
        elif rule_id:
            self._ids[rule_id] = f"{self._document.file}:{self._document.line(value.start)}"
        return rule_id

    def _legs(self, found: Table, period: str) -> tuple[Leg, ...]:
        """Read `when` and `rearm`, or `legs` of them; conditions over groups can't be checked without aggregates."""
        if self._over is not None and not self._over.aggregates:
            return ()
        legs = found.get("legs")
        if legs is None:
            leg = self._leg(found, None, period)
            return () if leg is None else (leg,)
        for key in ("when", "rearm"):
            if found.get(key) is not None:
                self._reading.error(
                    found.key(key), f"{key} and legs can't stand together", hint=f"give each leg its {key}"
                )
        named = self._reading.tried(fields.table, self._document, legs, "legs")
        if named is None:
            return ()
        if not named.pairs:
            self._reading.error(legs, "legs is empty", hint="write legs: {NAME: {when: …}}")
        return tuple(leg for key, value in named.pairs for leg in self._named_leg(key, value, period))

    def _named_leg(self, key: Scalar, value: Value, period: str) -> Iterator[Leg]:
        document = self._document
        name = self._reading.tried(fields.rule_id, document, key)
        found = self._reading.tried(fields.table, document, value, "a leg")
        if name is None or found is None:
            return
        self._reading.refuse_unknown(found, ("when", "rearm"), "a leg")
        leg = self._leg(found, name, period)
        if leg is not None:
            yield leg

    def _leg(self, found: Table, name: str | None, period: str) -> Leg | None:
        when = self._reading.required(found, "when", lambda document, value: self._formula(value, period))
        rearm = self._reading.field(found, "rearm", lambda document, value: self._formula(value, period), None)
        return None if when is None else Leg(name=name, when=when, rearm=rearm)

    def _formula(self, value: Value, period: str) -> Formula:
        """Read a formula; its findings are moved to their place in the file. Raises RuleFileError."""
        document = self._document
        text = fields.text(document, value)
        assert isinstance(value, Scalar)
        try:
            meant, functions = self._put_in(parse(text)), self._functions
            if self._over is not None:
                meant, period, functions = over.refuse_market(meant, functions), "tick", over.functions_of(functions)
            checked = check(meant, period=period, functions=functions, words=self._words)
        except RuleFileError as error:
            raise RuleFileError([_cut_short(document, value, finding) for finding in error.findings]) from None
        document.warnings += [document.place(finding, value) for finding in checked.warnings]
        if self._over is None and period == "tick" and "FEED_AGE" in checked.words:
            document.warnings.append(document.finding(value.start, value.end, _NO_AGE, hint=_AGE, severity="warning"))
        return checked.formula

    def _put_in(self, formula: Formula) -> Formula:
        """Put the rule's parameters into a formula, and note which are used."""
        self._named |= names_in(formula)
        return put_in(formula, self._parameters)

    def _messages(self, found: Table, legs: tuple[Leg, ...], period: str) -> dict[str, Template]:
        """Read `message`, in the language of the rule set."""
        value = found.get("message")
        if value is None:
            return {}
        allowed = _nameable(legs, period, self._words) | set(self._parameters)
        messages = read_messages(self._document, value, allowed=allowed, language=self._language)
        self._named |= {name for template in messages.values() for name in template.names}
        values = {name: one.value for name, one in self._parameters.items()}
        return {event: template.filled(values) for event, template in messages.items()}

    def _lint_threshold(self, rule: Rule, found: Table) -> None:
        """Warn of a condition on ticks that may cross its threshold to and fro all day."""
        if rule.evaluation is not Evaluation.TICK or rule.mode is not Mode.EDGE or rule.cooldown_ms is not None:
            return
        if rule.frequency is Frequency.ONCE:
            return
        for leg in rule.legs:
            if leg.rearm is None and any(threshold_operands(e) for s in leg.when.statements for e in walk(s.expr)):
                key = found.key("when" if leg.name is None else "legs")
                self._document.warnings.append(
                    self._document.finding(
                        key.start, key.end, "fires anew each time a tick crosses the threshold, however little",
                        hint="set rearm: to a level further back, or cooldown:", severity="warning",
                    )
                )  # fmt: skip


def _cut_short(document: Document, value: Scalar, finding: Finding) -> Finding:
    """Place a finding about a formula; where YAML has ended it at a comma, say so."""
    placed = document.place(finding, value)
    if (
        not value.style
        and "parenthesis is still open" in finding.message
        and document.text[value.end : value.end + 1] == ","
    ):
        return replace(placed, hint="quote the formula: inside { } a comma ends it")
    return placed


def _shipped(document: Document, value: Value) -> ShippedRule:
    """Read `use`: the id of a shipped rule."""
    found = shipped_rules().get(fields.text(document, value))
    if found is None:
        written = value.text if isinstance(value, Scalar) else ""
        hint = did_you_mean(written, shipped_rules()) or "docs/catalog.md lists them"
        raise document.refuse(value, f"there is no shipped rule {written[:64]!r}", hint=hint)
    return found


def _nameable(legs: tuple[Leg, ...], period: str, known: Mapping[str, Word]) -> set[str]:
    """Return what a message may name: outputs of any leg, and words that have a value on this period."""
    words = {
        spelling
        for spelling, word in known.items()
        if word.scope is not Scope.BAR or period != "tick" or word.name == "C"
    }
    return words | {statement.name for leg in legs for statement in leg.when.outputs}
