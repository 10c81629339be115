"""Files of rule tests: YAML text → frozen cases, with every error of the file at once and at its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, ParamSpec, TypeVar

from feeds.instruments import Instrument
from feeds.sessions import unix_ms
from rules import fields
from rules.document import Document, Listing, Scalar, Table, Value, read
from rules.errors import RuleFileError
from rules.language.syntax import did_you_mean
from rules.positions import read_books
from rules.testcase import (
    BAR_WORDS,
    INLINE_PERIODS,
    STATUS,
    TICK_COLUMNS,
    BarSegment,
    Case,
    Expected,
    FileSegment,
    Segment,
    Series,
    Suite,
    TickSegment,
)
from rules.testfields import (
    YEARS,
    Setting,
    read_date,
    read_expected,
    read_exright,
    read_gap,
    read_halt,
    read_instruments,
    read_moment,
    read_reload,
    read_restart,
    read_series,
)

T = TypeVar("T")
P = ParamSpec("P")

DEFAULT_DATE: Final = 20250102
_CASE_KEYS: Final = (
    "name", "rule", "rules", "symbol", "symbols", "date", "feed", "gap", "halt", "restart_at", "reload_at", "exright",
    "instruments", "positions", "expect",
)  # fmt: skip
_TICK_KEYS: Final = ("start", "step", "date", "symbol", "symbols")
_BAR_KEYS: Final = ("bars", "start", "date", "symbol", "symbols")
_FILE_KEYS: Final = ("file", "period", "symbol", "symbols")
_SESSION_KEYS: Final = ("session", "from", "to", "date", "symbol", "symbols")
_STATUS_CODES: Final = range(1 << 15)
_CANONICAL: Final = {"CLOSE": "C", "OPEN": "O", "HIGH": "H", "LOW": "L", "VOL": "V", "AMOUNT": "AMO"}


def read_suite(text: str, *, file: str) -> Suite:
    """Read a file of rule tests. Raises RuleFileError with every finding."""
    document = Document(text.removeprefix("\ufeff"), file)
    suite = _SuiteReader(document).suite()
    if document.errors or suite is None:
        raise RuleFileError(sorted(document.errors, key=lambda finding: (finding.line, finding.column)))
    return suite


class _SuiteReader:
    """Reads one file; errors go to the document."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def suite(self) -> Suite | None:
        document = self._document
        root = read(document)
        top = None if root is None else self._try(fields.table, document, root, "a file of rule tests")
        if top is None:
            return None
        self._refuse_unknown(top, ("rule_files", "date", "instruments", "tests"), "a file of rule tests")
        files = self._texts(top, "rule_files")
        day = self._field(top, "date", read_date, DEFAULT_DATE)
        known: dict[str, Instrument] = self._field(top, "instruments", read_instruments, {})
        tests = top.get("tests")
        if not files:
            self._error(top, "rule_files is missing", hint="write rule_files: [rules.yaml]", width=1)
        if tests is None:
            self._error(top, "tests is missing", hint="write tests: [{name: …, rule: …, feed: …, expect: …}]", width=1)
            return None
        entries = self._try(fields.entries, document, tests) or ()
        cases = [self._case(entry, files, day, known) for entry in entries]
        return Suite(document.file, document.text, files, tuple(case for case in cases if case is not None))

    def _case(self, value: Value, files: tuple[str, ...], day: int, known: Mapping[str, Instrument]) -> Case | None:
        document = self._document
        found = self._try(fields.table, document, value, "a test")
        if found is None:
            return None
        before = len(document.errors)
        self._refuse_unknown(found, _CASE_KEYS, "a test")
        name = self._required(found, "name", fields.text)
        setting = Setting(self._field(found, "date", read_date, day), self._symbols(found))
        feed = self._required(found, "feed", fields.entries)
        expect = found.get("expect")
        if expect is None:
            self._error(found, "expect is missing", hint="write expect: [] and run with --update to fill it", width=1)
        segments = [self._try(self._segment, entry, setting) for entry in feed or ()]
        expected = () if expect is None else self._expected(expect)
        case = Case(
            name=name or "", line=document.line(found.start), rule_files=files, date=setting.date,
            symbols=setting.symbols, rules=self._texts(found, "rule") + self._texts(found, "rules"),
            feed=tuple(segment for segment in segments if segment is not None),
            gaps=self._each(found, "gap", read_gap, setting),
            halts=self._each(found, "halt", read_halt, setting),
            restarts=self._each(found, "restart_at", read_restart, setting),
            reloads=self._each(found, "reload_at", read_reload, setting),
            exrights=self._each(found, "exright", read_exright, setting),
            instruments={**known, **self._field(found, "instruments", read_instruments, {})},
            positions=self._field(found, "positions", read_books, ()),
            expect=expected, expect_place=found if expect is None else expect,
        )  # fmt: skip
        return case if len(document.errors) == before else None

    def _each(
        self, found: Table, key: str, reader: Callable[[Document, Value, Setting], T], setting: Setting
    ) -> tuple[T, ...]:
        """Read a directive that may stand there once or as a list."""
        value = found.get(key)
        entries = () if value is None else value.entries if isinstance(value, Listing) else (value,)
        read_all = (self._try(reader, self._document, entry, setting) for entry in entries)
        return tuple(one for one in read_all if one is not None)

    # ── segments ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _segment(self, value: Value, setting: Setting) -> Segment:
        document = self._document
        found = fields.table(document, value, "a segment of a feed")
        own = self._symbols(found)
        setting = Setting(self._field(found, "date", read_date, setting.date), own or setting.symbols)
        if found.get("session") is not None or found.get("file") is not None:
            return self._file(found, setting, own)
        if not setting.symbols:
            raise document.refuse(found, "no symbol sends this", hint="write symbol: 600519.SH, here or for the test")
        return self._bars(found, setting) if found.get("bars") is not None else self._ticks(found, setting)

    def _ticks(self, found: Table, setting: Setting) -> TickSegment:
        document = self._document
        known = (*TICK_COLUMNS, STATUS)
        words = self._words(found, _TICK_KEYS, known, 'LAST: "10 10.1"')
        start_ms = read_moment(document, self._needed(found, "start"), setting)
        step = found.get("step")
        step_ms = 3000 if step is None else fields.duration_ms(document, step)
        n = max(len(series) for series in words.values())
        if start_ms + n * step_ms >= unix_ms(YEARS.stop * 10_000 + 101, 0):
            raise document.refuse(found, f"this goes on until {YEARS.stop} and longer", hint="use a shorter step")
        return TickSegment(setting.symbols, start_ms, step_ms, n, words)

    def _bars(self, found: Table, setting: Setting) -> BarSegment:
        document = self._document
        words = self._words(found, _BAR_KEYS, BAR_WORDS, 'C: "10 10.1"')
        if "C" not in words:
            raise document.refuse(found, "bars need C", hint='write C: "10 10.1 10.2"')
        if None in words["C"]:
            raise document.refuse(found, "a bar has a close: C can't be _", hint="leave the bar out, or use ticks")
        period = fields.one_of("bars", INLINE_PERIODS)(document, self._needed(found, "bars"))
        start = found.get("start")
        start_ms = (
            unix_ms(setting.date, (9 * 60 + 30) * 60_000) if start is None else read_moment(document, start, setting)
        )
        return BarSegment(setting.symbols, period, start_ms, max(map(len, words.values())), words)

    def _file(self, found: Table, setting: Setting, symbols: tuple[str, ...]) -> FileSegment:
        document = self._document
        session = found.get("session")
        self._refuse_unknown(found, _FILE_KEYS if session is None else _SESSION_KEYS, "a file of a feed")
        place = session if session is not None else self._needed(found, "file")
        path = fields.text(document, place)
        assert isinstance(place, Scalar)
        period, begin, end = found.get("period"), found.get("from"), found.get("to")
        if session is None and period is None:
            raise document.refuse(found, "a file of bars needs its period", hint="write period: 5m, or session: FILE")
        return FileSegment(
            path,
            place,
            None if period is None else fields.one_of("period", INLINE_PERIODS)(document, period),
            symbols,
            None if begin is None else read_moment(document, begin, setting),
            None if end is None else read_moment(document, end, setting),
        )

    def _words(self, found: Table, keys: tuple[str, ...], known: tuple[str, ...], example: str) -> dict[str, Series]:
        """Read the series of a segment; one sample alone holds all along, the others must be of one length."""
        document = self._document
        words: dict[str, Series] = {}
        for key, value in found.pairs:
            if key.text in keys:
                continue
            word = _CANONICAL.get(key.text.upper(), key.text.upper())
            if word not in known:
                hint = did_you_mean(key.text, (*keys, *known)) or f"a feed sets {', '.join(known[:7])} …"
                raise document.refuse(key, f"no tick or bar has {key.text!r}", hint=hint)
            words[word] = read_series(document, value)
            if word == STATUS and not all(one is None or one in _STATUS_CODES for one in words[word]):
                raise document.refuse(value, "a status is a whole number from 0 to 32767", hint="write 14, or 17")
        if not words:
            raise document.refuse(found, "there are no samples", hint=f"write {example}")
        n = max(map(len, words.values()))
        for key, value in found.pairs:
            got = words.get(_CANONICAL.get(key.text.upper(), key.text.upper()))
            if key.text not in keys and got is not None and len(got) not in (1, n):
                message = f"{key.text} has {len(got)} samples where another word has {n}"
                raise document.refuse(value, message, hint="give as many, or one that holds all along")
        return words

    # ── expect ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _expected(self, value: Value) -> tuple[Expected, ...]:
        if not isinstance(value, Listing):
            self._error(value, "expect is the list of all events", hint="write expect: [] if there are none")
            return ()
        found = (self._try(read_expected, self._document, entry) for entry in value.entries)
        return tuple(one for one in found if one is not None)

    # ── reading and complaining ───────────────────────────────────────────────────────────────────────────────────

    def _symbols(self, found: Table) -> tuple[str, ...]:
        symbols: list[str] = []
        for key in ("symbol", "symbols"):
            value = found.get(key)
            for entry in () if value is None else self._try(fields.entries, self._document, value) or ():
                symbol = self._try(fields.symbol, self._document, entry)
                symbols += [] if symbol is None else [symbol]
        return tuple(dict.fromkeys(symbols))

    def _texts(self, found: Table, key: str) -> tuple[str, ...]:
        return self._field(found, key, fields.texts, ())

    def _needed(self, found: Table, key: str) -> Value:
        value = found.get(key)
        if value is None:
            raise self._document.refuse(found, f"{key} is missing", hint=f"write {key}: …")
        return value

    def _required(self, found: Table, key: str, reader: Callable[[Document, Value], T]) -> T | None:
        return self._try(lambda: reader(self._document, self._needed(found, key)))

    def _field(self, found: Table, key: str, reader: Callable[[Document, Value], T], default: T) -> T:
        value = found.get(key)
        read_value = None if value is None else self._try(reader, self._document, value)
        return default if read_value is None else read_value

    def _try(self, reader: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return reader(*args, **kwargs)
        except RuleFileError as error:
            self._document.errors += error.findings
            return None

    def _refuse_unknown(self, found: Table, known: tuple[str, ...], what: str) -> None:
        for key, _ in found.pairs:
            if key.text not in known:
                hint = did_you_mean(key.text, known) or f"it has {', '.join(known)}"
                self._error(key, f"{what} has no key {key.text!r}", hint=hint)

    def _error(self, place: Value, message: str, *, hint: str, width: int | None = None) -> None:
        end = place.end if width is None else place.start + width
        self._document.errors.append(self._document.finding(place.start, end, message, hint=hint))
