"""`monitord test`: rule tests. Exit code 0 all pass, 1 some fail, 2 unusable input."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monitord.commands import FINDINGS, GOOD, CommandError
from monitord.commands.exrights import add_exrights, load_exrights
from monitord.commands.rulefiles import load_rules, read_texts

if TYPE_CHECKING:
    from feeds.exrights import ExRight
    from feeds.inputs import Input
    from rules.evaluate import BarTable
    from rules.rule import RuleSet
    from rules.ruletest import Result
    from rules.testcase import Case, FileSegment, Suite

HELP = "run rule tests: a feed written down and the complete list of events it must give"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="files of rule tests (YAML)")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML too")
    parser.add_argument(
        "--language", choices=("zh", "en"), default="zh", help="of messages a rule gives in several (default zh)"
    )
    add_exrights(parser)
    parser.add_argument("--update", action="store_true", help="write what came into the expect lists that fail")


def run(args: argparse.Namespace) -> int:
    """Run every test of every file and report; the files named in them are found beside them."""
    suites = [_Suite.open(file, args.language) for file in args.files]
    days = load_exrights(args.exrights)
    for suite in suites:
        suite.results = [suite.result(case, days) for case in suite.suite.cases]
    if args.update:
        for suite in suites:
            suite.update()
    if args.junit is not None:
        write_junit(args.junit, suites)
    failed = _print(suites, updated=args.update)
    return FINDINGS if failed and not args.update else GOOD


@dataclass(slots=True)
class _Suite:
    """A file of rule tests with its rules; `results` once it has run."""

    file: Path
    suite: Suite
    rules: dict[tuple[str, ...], RuleSet]
    results: Sequence[Result] = ()

    @classmethod
    def open(cls, file: Path, language: str) -> _Suite:
        """Read a file and all rule files it names; raises CommandError with every finding."""
        from rules.errors import RuleError
        from rules.testfile import read_suite

        (text,) = read_texts([file]).values()
        try:
            suite = read_suite(text, file=str(file))
        except RuleError as error:
            raise CommandError(f"the tests cannot be run\n{error}") from None
        named = {suite.rule_files} | {
            reload.rule_files for case in suite.cases for reload in case.reloads if reload.rule_files is not None
        }
        beside = {files: [file.parent / name for name in files] for files in named}
        return cls(file, suite, {files: load_rules(paths, language=language) for files, paths in beside.items()})

    def result(self, case: Case, exrights: Sequence[ExRight]) -> Result:
        """Run one case; raises CommandError for what cannot be run at all."""
        from feeds.errors import FeedError
        from rules.errors import RuleError
        from rules.ruletest import run

        try:
            return run(case, self.rules[case.rule_files], read=self._read, others=self.rules, exrights=exrights)
        except (RuleError, FeedError) as error:
            raise CommandError(f"{self.file}:{case.line}: {error}") from None

    def _read(self, segment: FileSegment) -> BarTable | Iterator[Input]:
        """Read a file that a feed names."""
        from feeds.recording import inputs
        from monitord.commands.bars import read_bars

        path = self.file.parent / segment.path
        if segment.period is not None:
            return read_bars(path, segment.period)
        symbols = frozenset(segment.symbols) or None
        return (given.value for given in inputs([path], symbols))

    def update(self) -> None:
        """Write the file anew where a test fails."""
        from rules.expectation import updated

        text = updated(self.suite, [(result.case, result.steps) for result in self.results])
        if text == self.suite.text:
            return
        part = self.file.with_name(f".{self.file.name}.part")
        try:
            part.write_bytes(text.encode())
            os.replace(part, self.file)
        except OSError as error:
            raise CommandError(f"{self.file}: cannot be written: {error.strerror}") from None
        finally:
            part.unlink(missing_ok=True)


def _print(suites: Sequence[_Suite], *, updated: bool) -> int:
    """Print what failed and the sums; return how many failed."""
    passed = failed = 0
    for suite in suites:
        for result in suite.results:
            if result.passed:
                passed += 1
                continue
            failed += 1
            print(f"{'UPDATED' if updated else 'FAIL'} {suite.file}:{result.case.line}: {result.case.name}")
            print(result.text())
    print(f"{passed} passed, {failed} {'updated' if updated else 'failed'}")
    return failed


def write_junit(file: Path, suites: Sequence[_Suite]) -> None:
    """Write JUnit XML: a suite per file, a test case per test; raises CommandError if it cannot be written."""
    from xml.etree import ElementTree

    root = ElementTree.Element("testsuites")
    for suite in suites:
        failures = sum(not result.passed for result in suite.results)
        counts = {"name": str(suite.file), "tests": str(len(suite.results)), "failures": str(failures), "errors": "0"}
        element = ElementTree.SubElement(root, "testsuite", counts)
        for result in suite.results:
            case = ElementTree.SubElement(
                element, "testcase", classname=suite.file.stem, name=result.case.name, file=str(suite.file),
                line=str(result.case.line),
            )  # fmt: skip
            if not result.passed:
                wrong = sum(step.expected is None or step.got is None for step in result.steps)
                failure = ElementTree.SubElement(case, "failure", message=f"{wrong} events differ")
                failure.text = f"\n{result.text()}\n"
    ElementTree.indent(root)
    try:
        ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise CommandError(f"{file}: cannot be written: {error.strerror}") from None
