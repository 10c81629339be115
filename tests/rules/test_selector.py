"""Which instruments a selector covers."""

from __future__ import annotations

import pytest

from feeds.instruments import Board, Instrument
from rules.selector import Selector

MOUTAI = Instrument("600519.SH", name="贵州茅台", board=Board.MAIN, sectors=("白酒", "沪深300"))
ST = Instrument("000005.SZ", name="*ST星源", board=Board.MAIN)
STAR = Instrument("688981.SH", name="中芯国际", board=Board.STAR)
UNKNOWN = Instrument("830799.BJ")
ALL = (MOUTAI, ST, STAR, UNKNOWN)


@pytest.mark.parametrize(
    ("selector", "covered"),
    [
        (Selector(every=True), ALL),
        (Selector(), ()),
        (Selector(symbols=frozenset({"600519.SH", "830799.BJ"})), (MOUTAI, UNKNOWN)),
        (Selector(globs=("6*.SH",)), (MOUTAI, STAR)),
        (Selector(globs=("83*", "0*")), (ST, UNKNOWN)),
        (Selector(boards=frozenset({Board.MAIN})), (MOUTAI, ST)),
        (Selector(boards=frozenset({Board.BSE})), (UNKNOWN,)),
        (Selector(names=("*ST*",)), (ST,)),
        (Selector(sectors=frozenset({"白酒", "银行"})), (MOUTAI,)),
        (Selector(boards=frozenset({Board.MAIN}), sectors=frozenset({"白酒"})), (MOUTAI,)),
        (Selector(boards=frozenset({Board.STAR}), sectors=frozenset({"白酒"})), ()),
        (Selector(every=True, exclude=Selector(names=("*ST*",))), (MOUTAI, STAR, UNKNOWN)),
        (Selector(every=True, exclude=Selector(names=("*ST*",), boards=frozenset({Board.STAR}))), (MOUTAI, UNKNOWN)),
        (Selector(boards=frozenset({Board.MAIN}), exclude=Selector(symbols=frozenset({"600519.SH"}))), (ST,)),
        (Selector(every=True, exclude=Selector()), ALL),
    ],
)
def test_covers(selector: Selector, covered: tuple[Instrument, ...]) -> None:
    assert tuple(instrument for instrument in ALL if selector.covers(instrument)) == covered


def test_equal_selectors_have_equal_texts_and_others_do_not() -> None:
    one = Selector(symbols=frozenset({"600519.SH", "000001.SZ"}), globs=("6*", "0*"))
    same = Selector(symbols=frozenset({"000001.SZ", "600519.SH"}), globs=("0*", "6*"))
    others = [
        Selector(symbols=one.symbols),
        Selector(globs=one.globs),
        Selector(every=True),
        Selector(names=one.globs),
        Selector(every=True, exclude=one),
    ]
    assert one.text() == same.text()
    assert len({selector.text() for selector in (one, *others)}) == 1 + len(others)


def test_case_matters_in_globs() -> None:
    assert not Selector(globs=("*.sh",)).covers(MOUTAI)


@pytest.mark.parametrize(
    ("selector", "may"),
    [
        (Selector(every=True), True),
        (Selector(), False),
        (Selector(symbols=frozenset({"600519.SH"})), True),
        (Selector(symbols=frozenset({"600518.SH"})), False),
        (Selector(names=("*ST*",)), True),
        (Selector(names=("*ST*",), boards=frozenset({Board.STAR})), False),
        (Selector(sectors=frozenset({"银行"})), True),
        (Selector(book="main"), True),
        (Selector(every=True, exclude=Selector(names=("贵州*",))), True),
        (Selector(every=True, exclude=Selector(globs=("600*",))), False),
    ],
)
def test_what_a_code_alone_leaves_open_may_be(selector: Selector, may: bool) -> None:
    assert selector.may_cover("600519.SH") is may
