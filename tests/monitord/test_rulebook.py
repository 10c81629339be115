"""The rule book: files and what is made by API as one set, changed as a whole or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from monitord.rulebook import NotHereError, RefusedRules, Rulebook
from monitord.ruletext import RuleField, RuleText, rule_text
from monitord.storedrules import Monitor
from monitord.tasks import MonitorTask, TaskTerms
from rules import rulefile
from rules.errors import RuleFileError
from rules.rule import RuleSet

FILE = "version: 1\ngroups:\n- name: g\n  rules:\n  - {id: ID, select: all, when: PCT > 1, rearm: PCT < 1}\n"


def monitor(number: int = 1, **rule: Any) -> RuleText:
    return Monitor(id=number, name="m", rule={"select": ["600519.SH"], "when": "LAST > 1", **rule}).text()


class Book:
    """A rule book over files in memory, and the ids of what was in force, time after time."""

    def __init__(self, **files: str) -> None:
        self.files = {f"{name}.yaml": text for name, text in (files or {"a": FILE}).items()}
        self.in_force: list[list[str]] = []
        self.kept: list[str] = []
        self.book = Rulebook(lambda: dict(self.files), parse=rulefile.load, change=self._change)

    async def _change(self, decide: Callable[[], Awaitable[RuleSet]]) -> None:
        self.in_force.append([rule.id for rule in (await decide()).rules])

    async def put(self, text: RuleText) -> None:
        await self.book.put(text, keep=lambda: self.keep(text.name))

    async def keep(self, what: str) -> None:
        self.kept.append(what)

    def loaded(self) -> list[str]:
        return [rule.id for rule in self.book.load().rules]


async def test_what_is_made_comes_behind_the_files_and_outlives_their_reload() -> None:
    book = Book()
    await book.book.open([], running=True)
    await book.put(monitor(1))
    await book.put(monitor(2, id="mine"))
    await book.put(monitor(1, when="LAST > 2"))
    assert book.in_force[-1] == ["ID", "monitor-1", "mine"]
    assert book.kept == ["monitor/1", "monitor/2", "monitor/1"]
    book.files["a.yaml"] = FILE.replace("ID", "OTHER")
    assert book.loaded() == ["OTHER", "monitor-1", "mine"]
    await book.book.drop("monitor/2", keep=lambda: book.keep("gone"))
    assert (book.in_force[-1], book.kept[-1]) == (["OTHER", "monitor-1"], "gone")


async def test_a_bad_rule_is_refused_with_its_field_and_nothing_is_kept() -> None:
    book = Book()
    await book.book.open([], running=True)
    for rule, field in (
        ({"when": "CORSS(LAST,1)"}, "rule.when"), ({"select": ["600519"]}, "rule.select"), ({"id": "ID"}, "rule.id"),
        ({"colour": 1}, "rule.colour"), ({"freq": {"step": "x"}}, "rule.freq"), ({"for": "30s"}, "rule.for"),
    ):  # fmt: skip
        with pytest.raises(RefusedRules) as caught:
            await book.put(monitor(**rule))
        assert caught.value.findings[0][1] == field
        with pytest.raises(RefusedRules):
            await book.book.check(monitor(**rule))
    assert (book.in_force, book.kept, book.loaded()) == ([], [], ["ID"])


async def test_what_cannot_be_kept_is_not_in_force_either() -> None:
    book = Book()
    await book.book.open([], running=True)

    async def full() -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        await book.book.put(monitor(), keep=full)
    assert (book.in_force, book.loaded()) == ([], ["ID"])


async def test_a_file_somebody_is_at_work_on_does_not_get_into_a_change() -> None:
    book = Book()
    await book.book.open([], running=True)
    book.files["a.yaml"] = "version: 1\ngroups: ["
    await book.put(monitor())
    assert book.in_force == [["ID", "monitor-1"]]
    with pytest.raises(RuleFileError):
        book.book.load()


async def test_what_does_not_go_with_todays_files_is_left_out_at_a_start_and_the_rest_is_not() -> None:
    book = Book(a=FILE.replace("ID", "mine"))
    await book.book.open([monitor(1, id="mine"), monitor(2)], running=True)
    assert book.loaded() == ["mine", "monitor-2"]
    assert "mine" in book.book.refused["monitor/1"]
    book.files["a.yaml"] = FILE  # mended, and read again
    assert (book.loaded(), book.book.refused) == (["ID", "monitor-2", "mine"], {})
    await book.book.open([monitor(1, id="mine"), monitor(2)], running=True)
    assert book.loaded() == ["ID", "mine", "monitor-2"]


async def test_one_bad_text_among_many_costs_a_start_no_more_than_a_few_readings() -> None:
    read: list[int] = []

    def parse(texts: Mapping[str, str]) -> RuleSet:
        read.append(len(texts))
        return rulefile.load(texts)

    book = Rulebook(dict, parse=parse, change=Book()._change)
    await book.open([monitor(n, **({"when": "CORSS(1,2)"} if n == 11 else {})) for n in range(1, 33)], running=True)
    assert list(book.refused) == ["monitor/11"]
    assert len(read) < 16
    assert [rule.id for rule in book.load().rules] == [f"monitor-{n}" for n in range(1, 33) if n != 11]


async def test_bad_files_are_an_error_at_a_start_whatever_was_made() -> None:
    book = Book(a=FILE.replace("PCT > 1", "CORSS(1,2)"))
    with pytest.raises(RuleFileError, match="CORSS"):
        await book.book.open([monitor()], running=True)


async def test_while_the_service_is_stopped_no_rule_is_in_force_and_changes_are_kept() -> None:
    book = Book()
    await book.book.open([], running=True)
    await book.book.run(False, keep=lambda: book.keep("off"))
    await book.put(monitor())
    assert (book.in_force, book.loaded()) == ([[], []], [])
    with pytest.raises(RefusedRules):
        await book.put(monitor(2, when="CORSS(1,2)"))
    await book.book.run(True, keep=lambda: book.keep("on"))
    assert book.in_force[-1] == book.loaded() == ["ID", "monitor-1"]
    assert book.kept == ["off", "monitor/1", "on"]


async def test_the_ids_of_tasks_are_theirs() -> None:
    terms = TaskTerms(stock_code="600519.SH", stop_loss=1)
    book = Book()
    await book.book.open([], running=True)
    await book.put(MonitorTask(id=3, terms=terms).text())
    assert book.in_force == [["ID", "task-3.stop_loss"]]
    with pytest.raises(RefusedRules, match=r"task-3\.stop_loss"):
        await book.put(monitor(id="task-3.stop_loss"))
    for strange in ("task-4.entry", "task-3.mine", "task-force.limit_up"):
        book.files["b.yaml"] = FILE.replace("ID", strange)
        with pytest.raises(RuleFileError, match="is that of a task's rule"):
            book.book.load()
    book.files["b.yaml"] = FILE.replace("ID", "task-force")
    assert "task-force" in book.loaded()


async def test_a_daemon_with_a_share_of_the_rules_takes_none() -> None:
    async def never(decide: Any) -> None:
        raise AssertionError

    book = Rulebook(dict, parse=rulefile.load, change=never, shared=True)
    await book.open([], running=True)
    for refused in (book.check(monitor()), book.put(monitor(), keep=never)):  # type: ignore[arg-type]
        with pytest.raises(NotHereError, match=r"engine\.share"):
            await refused


@pytest.mark.parametrize(
    "value", ["no", "14:57", "000001", "a: b # c", "say \"hi\"\n{}", "80%", "", "null", "'", "涨停 ：", "\x07", "\\"]
)  # fmt: skip
def test_any_text_comes_out_of_the_yaml_as_it_went_in(value: str) -> None:
    fields = {"id": "r", "select": "all", "when": "LAST > 1", "labels": {"on": value}}
    text = rule_text("f", value or "g", [[RuleField(key, one, key) for key, one in fields.items()]])
    (rule,) = rulefile.load({"f": text.text}).rules
    assert (rule.labels["on"], rule.group) == (value, value or "g")
