"""Rule tests: what a feed is, what is compared, how a difference is shown, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.inputs import Heartbeat, Input, Mark, MarkKind
from feeds.sessions import unix_ms
from feeds.tick import TickBatch
from rules.errors import RuleError, RuleFileError
from rules.evaluate import BarTable
from rules.expectation import updated
from rules.rulefile import load
from rules.ruletest import Result, run
from rules.testcase import FileSegment, Reload, Restart
from rules.testfeed import lay_out
from rules.testfile import read_suite

RULES = """\
version: 1
groups:
- name: price
  rules:
  - id: over
    select: all
    when: CROSS(LAST, 10)
    rearm: LAST < 9
    freq: always
  - id: gold
    select: {sector: [银行]}
    period: 5m
    eval: bar_close
    freq: once_per_bar
    when: "M: MA(C,3); C > M AND V > 100"
"""
DAY = 20250102


def case_text(body: str, *, rule: str = "over", symbol: str = "600519.SH", expect: str = "[]") -> str:
    lines = "\n".join("  " + line for line in body.strip().split("\n"))
    return f"rule_files: [r.yaml]\ntests:\n- name: t\n  rule: {rule}\n  symbol: {symbol}\n{lines}\n  expect: {expect}\n"


def nothing(segment: FileSegment) -> BarTable:
    raise AssertionError("no file is named")


def outcome(text: str, *, rules: str = RULES, read: object = nothing, others: object = None) -> Result:
    (case,) = read_suite(text, file="t.yaml").cases
    return run(case, load({"r.yaml": rules}), read=read, others=others)  # type: ignore[arg-type]


def seen(result: Result) -> list[tuple[str, str, str | None]]:
    """Return (time of day, event, why) of all events."""
    from rules.alert import shanghai_iso

    return [
        (shanghai_iso(step.got.ts_event_ms)[11:19], str(step.got.event), step.got.why)
        for step in result.steps
        if step.got is not None
    ]


def ticks(text: str) -> list[Input | Restart | Reload]:
    (case,) = read_suite(text, file="t.yaml").cases
    return list(lay_out(case, read=nothing))


# ── what a feed is ────────────────────────────────────────────────────────────────────────────────────────────────


def test_samples_come_one_step_apart_and_an_underscore_is_a_heartbeat() -> None:
    given = ticks(case_text('feed: [{start: "10:00:00", step: 2s, LAST: "10 _ 11*2 nan"}]'))
    at = unix_ms(DAY, 36_000_000)
    assert [type(one) for one in given] == [TickBatch, Heartbeat, TickBatch, TickBatch, TickBatch]
    times = [one.ts_ms if isinstance(one, Heartbeat) else int(one.ts_event_ms[0]) for one in given]  # type: ignore[union-attr]
    assert times == [at, at + 2000, at + 4000, at + 6000, at + 8000]
    last = [one.column("last")[0] for one in given if isinstance(one, TickBatch)]
    assert last[:3] == [10, 11, 11]
    assert np.isnan(last[3])


def test_a_tick_shows_the_day_so_far_and_holds_words_until_they_are_set_again() -> None:
    given = ticks(case_text('feed: [{start: "10:00:00", LAST: "10 12 9", BIDP1: "9.9 _ 8.9", PRECLOSE: "11"}]'))
    shown = [[one.column(name)[0] for name in ("open", "high", "low", "bid_price_1", "prev_close")] for one in given]  # type: ignore[union-attr]
    assert shown == [[10, 10, 10, 9.9, 11], [10, 12, 10, 9.9, 11], [10, 12, 9, 8.9, 11]]
    assert np.isnan(given[0].column("volume_lots")[0])  # type: ignore[union-attr]
    assert given[0].column("bid_lots_1")[0] == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("clock", "status"),
    [("09:10:00", 11), ("09:15:00", 12), ("09:25:00", 14), ("09:30:00", 13), ("11:30:00", 13), ("12:00:00", 14),
     ("13:00:00", 13), ("14:57:00", 18), ("15:00:00", 15)],
)  # fmt: skip
def test_the_status_code_follows_the_clock(clock: str, status: int) -> None:
    (tick,) = ticks(case_text(f'feed: [{{start: "{clock}", LAST: "10"}}]'))
    assert tick.status[0] == status  # type: ignore[union-attr]


def test_segments_of_several_symbols_are_merged_by_time_and_share_a_batch_at_one_ms() -> None:
    text = case_text(
        """
feed:
- {start: "10:00:03", LAST: "1 2"}
- {start: "10:00:00", LAST: "3 4", symbol: 000001.SZ}
- {start: "10:00:06", LAST: "5", symbols: [000002.SZ, 000004.SZ]}"""
    )
    assert [one.symbols for one in ticks(text)] == [  # type: ignore[union-attr]
        ("000001.SZ",),
        ("600519.SH", "000001.SZ"),
        ("600519.SH", "000002.SZ", "000004.SZ"),
    ]


def test_a_new_dates_previous_close_is_the_old_ones_last_price_times_the_factor_of_an_ex_rights_day() -> None:
    text = case_text(
        """
exright: {date: 2025-01-03, factor: 0.5}
feed:
- {start: "14:00:00", LAST: "10 12"}
- {date: 2025-01-03, start: "10:00:00", LAST: "6"}
- {date: 2025-01-06, start: "10:00:00", LAST: "7"}"""
    )
    previous = [one.column("prev_close")[0] for one in ticks(text)]  # type: ignore[union-attr]
    assert np.isnan(previous[0])
    assert previous[2:] == [6, 6]


def test_bars_become_ticks_that_make_those_bars_again() -> None:
    text = case_text(
        """
instruments: {600519.SH: {sectors: [银行]}}
feed: [{bars: 5m, C: "10 10 10 11 10 12", H: "11 11 11 12 12 13", V: "200*4 50 200"}]""",
        rule="gold",
        expect="""
  - {at: "09:50:00", event: fire, M: 10.333333333333334, C: 11, V: 200}
  - {at: "10:00:00", event: fire, M: 11, C: 12}""",
    )
    assert outcome(text).text() == ""


def test_bars_go_on_on_the_next_weekday() -> None:
    text = case_text('date: 2025-01-03\nfeed: [{bars: 1d, C: "10 11"}]')
    days = {int(one.ts_event_ms[0]) // 86_400_000 for one in ticks(text) if isinstance(one, TickBatch)}
    assert days == {unix_ms(20250103, 36_000_000) // 86_400_000, unix_ms(20250106, 36_000_000) // 86_400_000}


def test_bars_of_a_file_and_a_recorded_session_are_played() -> None:
    table = BarTable(
        period="5m", symbol=np.array(["600519.SH"] * 3, object),
        ts_end=np.array([unix_ms(DAY, 34_200_000 + 300_000 * k) for k in (1, 2, 3)]),
        open=np.array([8.0, 9, 12]), high=np.array([9.0, 12, 12]), low=np.array([8.0, 9, 8]),
        close=np.array([9.0, 12, 8]), volume_lots=np.full(3, np.nan), amount_cny=np.full(3, np.nan),
        suspended=np.zeros(3, np.bool_),
    )  # fmt: skip
    asked: list[FileSegment] = []

    def bars(segment: FileSegment) -> BarTable:
        asked.append(segment)
        return table

    text = case_text("feed: [{file: b.csv, period: 5m}]", expect='[{at: "09:40:00", event: fire, LAST: 12}]')
    assert outcome(text, read=bars).text() == ""
    assert (asked[0].path, asked[0].period) == ("b.csv", "5m")

    recorded = ticks(case_text('feed: [{start: "10:00:00", LAST: "8 11 8 11"}]'))
    text = case_text('feed: [{session: s.parquet, to: "10:00:06"}]', expect='[{at: "10:00:03", event: fire, LAST: 11}]')
    assert outcome(text, read=lambda segment: iter(recorded)).text() == ""


# ── what happens meanwhile ────────────────────────────────────────────────────────────────────────────────────────


def test_a_silence_is_marked_its_ticks_are_lost_and_the_clock_goes_on() -> None:
    text = case_text('gap: {from: "10:00:03", to: "10:00:09"}\nfeed: [{start: "10:00:00", LAST: "1 2 3 4 5"}]')
    given = ticks(text)
    assert [
        (one.kind, one.ts_ms % 60_000) if isinstance(one, Mark)
        else one.ts_ms % 60_000 if isinstance(one, Heartbeat)
        else float(one.column("last")[0])  # type: ignore[union-attr]
        for one in given
    ] == [1, 2, (MarkKind.SILENT, 3000), 6000, (MarkKind.ALIVE, 9000), 4, 5]  # fmt: skip


def test_feed_events_are_compared_where_the_rule_feed_is_named() -> None:
    feed = 'gap: {from: "10:00:03", to: "10:00:09"}\nfeed: [{start: "10:00:00", LAST: "1 2 3 4 5"}]'
    assert seen(outcome(case_text(feed))) == []
    assert seen(outcome(case_text(feed, rule="[over, feed]"))) == [
        ("10:00:03", "nodata", "test"),
        ("10:00:09", "resolve", None),
    ]


def test_a_halt_is_told_at_once_and_its_ticks_are_no_samples() -> None:
    text = case_text(
        'halt: {from: "10:00:02", to: "10:00:06"}\nfeed: [{start: "10:00:00", LAST: "9 11 11"}]',
        expect='[{at: "10:00:06", event: fire}]',
    )
    given = ticks(text)
    assert [int(one.status[0]) for one in given] == [13, 17, 17, 13]  # type: ignore[union-attr]
    assert outcome(text).text() == ""


@pytest.mark.parametrize(
    "restart", ['"10:00:06"', '{at: "10:00:06", gap: true}', '["10:00:03", "10:00:06", "10:00:09"]']
)
def test_a_restart_changes_nothing(restart: str) -> None:
    feed = 'feed: [{start: "10:00:00", LAST: "9 11 10.5 8 11"}]'
    plain = outcome(case_text(feed))
    assert [at for at, _, _ in seen(plain)] == ["10:00:03", "10:00:12"]
    assert seen(outcome(case_text(f"restart_at: {restart}\n{feed}"))) == seen(plain)


def test_ticks_and_heartbeats_while_the_engine_is_down_are_lost_and_marked() -> None:
    text = case_text('restart_at: {at: "10:00:02", back_at: "10:00:08"}\nfeed: [{start: "10:00:00", LAST: "1 2 _ 4"}]')
    given = ticks(text)
    assert isinstance(given[1], Restart)
    assert given[2] == Mark(MarkKind.GAP, unix_ms(DAY, 36_002_000), "restart")
    assert [float(one.column("last")[0]) for one in given if isinstance(one, TickBatch)] == [1, 4]
    assert not any(isinstance(one, Heartbeat) for one in given)


def test_a_reload_with_an_edited_condition_resets_it_and_with_the_same_files_changes_nothing() -> None:
    feed = 'feed: [{start: "10:00:00", LAST: "9 11 10.5 11 13"}]'
    same = case_text(f'reload_at: "10:00:06"\n{feed}', expect='[{at: "10:00:03", event: fire}]')
    assert outcome(same).text() == ""
    other = case_text(
        f'reload_at: {{at: "10:00:06", rule_files: [new.yaml]}}\n{feed}',
        expect='[{at: "10:00:03", event: fire}, {at: "10:00:12", event: fire}]',
    )
    new = load({"new.yaml": RULES.replace("CROSS(LAST, 10)", "CROSS(LAST, 12)")})
    assert outcome(other, others={("new.yaml",): new}).text() == ""


# ── what is compared, and how it is shown ─────────────────────────────────────────────────────────────────────────

FEED = 'feed: [{start: "10:00:00", LAST: "9 11 8 11", PRECLOSE: "10"}]'


@pytest.mark.parametrize(
    "expect",
    [
        '[{at: "10:00:03", event: fire}, {at: "10:00:09", event: fire}]',
        '[{at: "10:00:03.000", event: fire, LAST: 11, VOLDAY: null}, {at: "2025-01-02 10:00:09", event: fire}]',
        '[{at: "10:00:03", event: fire, late: false, rule: over, symbol: 600519.SH, episode: 1, gap: null}, '
        '{at: "10:00:09", event: fire, episode: 2, suppressed: 0, why: null, severity: info, date: "2025-01-02"}]',
    ],
)
def test_only_the_keys_named_are_compared(expect: str) -> None:
    assert outcome(case_text(FEED, expect=expect)).passed


@pytest.mark.parametrize(
    ("expect", "lines"),
    [
        ('[{at: "10:00:03", event: fire}]', ["+ 10:00:09 fire LAST=11"]),
        ("[]", ["+ 10:00:03 fire LAST=11", "+ 10:00:09 fire LAST=11"]),
        (
            '[{at: "10:00:03", event: fire}, {at: "10:00:05", event: resolve}, {at: "10:00:09", event: fire}]',
            ["- 10:00:05 resolve"],
        ),
        (
            '[{at: "10:00:03", event: fire}, {at: "10:00:09", event: fire, LAST: 12}]',
            ["- 10:00:09 fire LAST=12    ← LAST is 11", "+ 10:00:09 fire LAST=11"],
        ),
        (
            '[{at: "10:00:03", event: fire}, {at: "10:00:08", event: fire}]',
            ["- 10:00:08 fire    ← at is 10:00:09", "+ 10:00:09 fire LAST=11"],
        ),
        (
            '[{at: "10:00:03", event: fire, MA5: 1}, {at: "10:00:09", event: fire}]',
            ["- 10:00:03 fire MA5=1    ← MA5 is (no such value)", "+ 10:00:03 fire LAST=11"],
        ),
        (
            '[{at: "10:00:03", event: fire, late: true}, {at: "10:00:09", event: fire, gap: lunch}]',
            ["- 10:00:03 fire late=true    ← late is false", "- 10:00:09 fire gap=lunch    ← gap is null"],
        ),
    ],
)
def test_an_event_too_many_too_few_or_different_fails_with_a_diff(expect: str, lines: list[str]) -> None:
    result = outcome(case_text(FEED.replace(', PRECLOSE: "10"', ""), expect=expect))
    assert not result.passed
    shown = [line.strip() for line in result.text().split("\n")]
    for line in lines:
        assert line in shown
    assert sum(line.startswith(("-", "+")) for line in shown) >= len(lines)


def test_long_stretches_that_hold_are_left_out_of_the_diff() -> None:
    feed = 'feed: [{start: "10:00:00", LAST: "' + "8 11 " * 30 + '"}]'
    times = [f"10:{(6 * k + 3) // 60:02}:{(6 * k + 3) % 60:02}" for k in range(30)]
    expect = "[" + ", ".join(f'{{at: "{at}", event: fire}}' for at in times if at != "10:01:33") + "]"
    lines = outcome(case_text(feed, expect=expect)).text().split("\n")
    assert lines.count("    …") == 2
    assert len(lines) == 9
    assert [line for line in lines if line.startswith("  +")] == ["  + 10:01:33 fire LAST=11"]


def test_a_rule_that_does_not_watch_the_symbol_is_named() -> None:
    text = case_text('feed: [{bars: 5m, C: "10 10 10 11"}]', rule="gold", expect='[{at: "09:50:00", event: fire}]')
    assert "rule gold does not watch 600519.SH" in outcome(text).text()


def test_an_unknown_rule_cannot_be_tested() -> None:
    with pytest.raises(RuleError, match="there is no rule 'ovr'"):
        outcome(case_text(FEED, rule="ovr"))


# ── written anew ──────────────────────────────────────────────────────────────────────────────────────────────────


def renewed(text: str) -> str:
    suite = read_suite(text, file="t.yaml")
    rules = load({"r.yaml": RULES})
    results = [run(case, rules, read=nothing) for case in suite.cases]
    return updated(suite, [(result.case, result.steps) for result in results])


@pytest.mark.parametrize(
    "expect",
    [
        "[]",
        "[]  # of the plan",
        '[{at: "10:00:03", event: fire}]',
        '\n  - {at: "10:00:04", event: fire}',
        '\n  # the first\n  - {at: "10:00:03", event: fire}  # good\n  # gone\n  - {at: "10:00:05", event: resolve}',
        '\n  - at: "10:00:03"\n    event: fire\n    LAST: 12\n  - at: "10:00:09"\n    event: fire',
        '\n    - {at: "10:00:03", event: fire}\n    - {at: "10:00:06", event: fire}',
    ],
)
def test_expect_is_written_as_it_came_and_then_passes(expect: str) -> None:
    text = case_text(FEED, expect=expect)
    new = renewed(text)
    assert outcome(new).passed
    assert renewed(new) == new
    for line in text.split("\n"):
        if "#" in line and "gone" not in line:
            assert line.split("#")[1] in new
    assert new.startswith(text[: text.index("expect:")])


def test_only_failing_lists_are_touched_and_all_may_go() -> None:
    both = case_text(FEED, expect='\n  - {at: "10:00:03", event: fire}  # keep\n  - {at: "10:00:09",   event: fire}')
    assert renewed(both) == both
    quiet = case_text(
        'feed: [{start: "10:00:00", LAST: "9"}]',
        expect='\n  - {at: "10:00:03", event: fire}\n  - {at: "10:00:04", event: fire}',
    )
    assert renewed(quiet) == case_text('feed: [{start: "10:00:00", LAST: "9"}]')


def test_several_tests_of_a_file_are_written_in_their_places() -> None:
    one = case_text(FEED, expect='\n  - {at: "10:00:03", event: fire}')
    two = one + one[one.index("- name") :].replace("name: t", "name: u")
    new = renewed(two)
    assert all(run(case, load({"r.yaml": RULES}), read=nothing).passed for case in read_suite(new, file="t").cases)
    assert new.count("10:00:09") == 2


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("old", "new", "place", "complaint", "hint"),
    [
        ("expect: []", "expect: []\n  fed: 1", (8, 3), "a test has no key 'fed'", "did you mean feed?"),
        ('start: "10:00:00"', "start: 10:00:00", (6, 18), "without quotes is read as 36000", 'quote it: "10:00:00"'),
        ('start: "10:00:00"', 'start: "25:00:00"', (6, 18), "is no time of day", '"10:00:00"'),
        ('start: "10:00:00"', "step: 3s", (6, 10), "start is missing", "start: …"),
        ("9 11 8 11", "9 11 eight", (6, 36), "'eight' is no sample", '"10 11*3 _*2"'),
        ("9 11 8 11", "9*300000", (6, 36), "more than 200000 samples", "longer step"),
        ("9 11 8 11", "", (6, 36), "there are no samples", "1795"),
        ("LAST:", "LSAT:", (6, 30), "no tick or bar has 'LSAT'", "did you mean LAST?"),
        ('PRECLOSE: "10"', 'BIDP1: "1 2"', (6, 56), "BIDP1 has 2 samples where another word has 4", "one that holds"),
        ("600519.SH", "600519", (5, 11), "600519 is a code without its exchange", "600519.SH"),
        ("  symbol: 600519.SH\n", "", (5, 10), "no symbol sends this", "write symbol:"),
        ("expect: []", "expect: {}", (7, 11), "expect is the list of all events", "expect: []"),
        ("expect: []", "expect: [{event: fire}]", (7, 12), "at is missing", 'at: "10:00:00"'),
        ("expect: []", 'expect: [{at: "10:00:00", event: fired}]', (7, 36), "can't be 'fired'", "mean fire?"),
        ("expect: []", 'expect: [{at: "10:00:00", event: fire, wy: x}]', (7, 42), "no 'wy'", "did you mean why?"),
        ("expect: []", 'expect: [{at: "10:00:00", event: fire, late: yes}]', (7, 48), "true or false", "write true"),
        ("expect: []", 'expect: [{at: "10:00:00", event: fire, LAST: x}]', (7, 48), "a number is needed", "null"),
        ("  expect: []\n", "", (3, 3), "expect is missing", "--update"),
        ("  expect: []", "  gap: {from: \"10:00:00\"}\n  expect: []", (7, 8), "to is missing", 'to: "10:00:00"'),
        ("  expect: []", "  gap: {from: \"10:00:09\", to: \"10:00:03\"}\n  expect: []", (7, 8), "ends before", "earl"),
        ("  expect: []", "  halt: \"10:00:09\"\n  expect: []", (7, 9), "a table is needed", "from"),
        ("  expect: []", '  restart_at: {at: "10:00:09", back_at: "10:00:03"}\n  expect: []', (7, 15), "is back", ""),
        ("  expect: []", "  exright: {factor: 0}\n  expect: []", (7, 12), "factor is a number above 0", "factor: 0.5"),
        ("  expect: []", "  date: 2025-02-30\n  expect: []", (7, 9), "there is no day", "2025-01-02"),
        ("rule_files: [r.yaml]\n", "", (1, 1), "rule_files is missing", "rules.yaml"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place_and_a_hint(
    old: str, new: str, place: tuple[int, int], complaint: str, hint: str
) -> None:
    text = case_text(FEED)
    assert old in text
    with pytest.raises(RuleFileError) as refused:
        read_suite(text.replace(old, new), file="t.yaml")
    finding = refused.value.findings[0]
    assert complaint in finding.message
    assert hint in (finding.hint or "")
    assert (finding.line, finding.column) == place


@pytest.mark.parametrize(
    ("feed", "complaint"),
    [
        ("[{bars: 5m, O: '1 2'}]", "bars need C"),
        ("[{bars: 5m, C: '1 _ 2'}]", "C can't be _"),
        ("[{bars: 7m, C: '1'}]", "bars can't be '7m'"),
        ("[{file: x.csv}]", "a file of bars needs its period"),
        ("[{session: x.csv, period: 5m}]", "a file of a feed has no key 'period'"),
        ("[3]", "a segment of a feed is a table"),
        ("[{start: '10:00:00', LAST: '1', STATUS: '99999'}]", "a status is a whole number from 0 to 32767"),
        ("[{start: '10:00:00', LAST: '1', STATUS: 'nan'}]", "a status is a whole number from 0 to 32767"),
        ("[{start: '10:00:00', date: 9999-12-31, LAST: '1'}]", "a day from 1990 to 2099 is needed here"),
        ("[{start: '10:00:00', step: 31d, LAST: '1*200000'}]", "this goes on until 2100 and longer"),
    ],
)
def test_a_segment_that_is_none_is_refused(feed: str, complaint: str) -> None:
    with pytest.raises(RuleFileError, match=complaint):
        read_suite(case_text(f"feed: {feed}"), file="t.yaml")


def test_every_error_of_a_file_is_told_at_once() -> None:
    text = case_text(FEED.replace("9 11", "9 x")) + "- name: u\n  rule: over\n  feed: []\n"
    with pytest.raises(RuleFileError) as refused:
        read_suite(text, file="t.yaml")
    assert [finding.line for finding in refused.value.findings] == [6, 8, 10]


def test_positions_of_a_case_are_in_force_from_the_start() -> None:
    rules = """
version: 1
groups:
- name: g
  rules:
  - {id: stop, select: {positions: main}, freq: once, legs: {down: {when: "LAST <= ENTRY*95%"}}}
"""
    text = case_text(
        """
positions: {main: [{symbol: 600519.SH, entry: 100, quantity: 200}]}
feed: [{start: "10:00:00", LAST: "99 95 90"}]""",
        rule="stop",
        expect='[{at: "10:00:03", event: fire, leg: down, LAST: 95}]',
    )
    assert outcome(text, rules=rules).text() == ""
    bare = text.replace("positions: {main: [{symbol: 600519.SH, entry: 100, quantity: 200}]}\n  ", "")
    assert "rule stop does not watch 600519.SH" in outcome(bare, rules=rules).text()
    with pytest.raises(RuleFileError, match="entry"):
        read_suite(text.replace("entry: 100", "entry: -1"), file="t.yaml")


def test_lists_too_long_to_align_are_shown_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rules.expectation.MOST_PAIRS", 1)
    feed = 'feed: [{start: "10:00:00", LAST: "9 11 8 11 8 11 8 11"}]'
    expect = "[" + ", ".join(f'{{at: "10:00:{at}", event: fire}}' for at in ("03", "10", "16", "21")) + "]"
    signs = [line[2] for line in outcome(case_text(feed, expect=expect)).text().split("\n")]
    assert signs == [" ", "-", "-", "+", "+", " "]


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_mutated_file_of_tests_is_read_or_refused_with_its_place(data: st.DataObject) -> None:
    text = case_text(
        """
gap: {from: "10:00:03", to: "10:00:09"}
halt: {from: "10:01:00", to: "10:01:09"}
restart_at: {at: "10:00:04", back_at: "10:00:06"}
exright: {date: 2025-01-03, factor: 0.5}
instruments: {600519.SH: {name: 茅台, sectors: [白酒]}}
feed: [{start: "10:00:00", step: 3s, LAST: "9 11 _*3 nan"}, {bars: 5m, C: "1 2"}, {file: b.csv, period: 5m}]""",
        expect='[{at: "10:00:03", event: fire, LAST: 11, late: false, "MA(C,5)": null}]',
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        size = data.draw(st.integers(0, 6))
        new = data.draw(st.text(st.sampled_from('"[]{}:,-_*0159 \n\tabfmn茅&!|>%#'), max_size=4))
        text = text[:at] + new + text[at + size :]
    try:
        suite = read_suite(text, file="t.yaml")
    except RuleFileError as refused:
        for finding in refused.findings:
            assert finding.message
            assert finding.hint
            assert 1 <= finding.line <= text.count("\n") + 1
    else:
        assert all(case.name for case in suite.cases)
