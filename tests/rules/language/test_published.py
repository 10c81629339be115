"""Formulas as they are pasted from forums: each is understood, or refused with the reason and a way out."""

from __future__ import annotations

import pytest

from rules.errors import RuleFileError
from rules.language.checker import Checked, check
from rules.language.parser import parse
from rules.language.refusals import ELSEWHERE, FUTURE, UNAVAILABLE
from rules.language.shorthand import SHORTHANDS
from rules.language.text import normal
from rules.language.words import MARKET
from rules.rulefile import load


def checked(text: str, period: str = "1d") -> Checked:
    return check(parse(text), period=period, words=MARKET)


def meaning(text: str) -> list[str]:
    return [normal(statement.expr) for statement in checked(text).formula.statements]


@pytest.mark.parametrize(
    ("pasted", "meant"),
    [
        ("ＭＡ５：＝ＭＡ（Ｃ，５）；ＣＲＯＳＳ（Ｃ，ＭＡ５）；", "MA5:=MA(C,5);CROSS(C,MA5);"),
        ("C>MA(C，２０)；", "C>MA(C,20);"),
        ("C＞０．５％*REF(C、1)", "C>0.5%*REF(C,1)"),
        ("“SH000001$CLOSE”>3000", '"SH000001$CLOSE">3000'),
        ("＂SH000001$CLOSE＂>3000", '"SH000001$CLOSE">3000'),
        ("C−O>0 AND C×2>O AND H÷2<L", "C-O>0 AND C*2>O AND H/2<L"),
        ("\ufeff\u200bC>O;\u3000\u00a0", "C>O;"),
        ("｛金叉｝C>O；／／ 说明", "C>O;"),
        ("{选股} // 说明\nvar1:=ema(close,12); cross(c,var1);", "VAR1:=EMA(CLOSE,12);CROSS(C,VAR1);"),
        ("A:MA(C,5),COLORRED,LINETHICK2,ALIGN1,MOVE2; XG:CROSS(C,A),NODRAW;", "A:MA(C,5);XG:CROSS(C,A);"),
        ("XG:C>O; DRAWTEXT(XG,L*0.98,'买，入'),COLORYELLOW; STICKLINE(C>O,C,O,2,0);", "XG:C>O;"),
        ('DRAWTEXT(C>O,L,"买");PLAYSOUND(C>O,\'a.wav\');XG:C>O;', "XG:C>O;"),
        ("涨幅:=(C/REF(C,1)-1)*100; 选股:涨幅>5 AND V>O;", "涨幅:=(C/REF(C,1)-1)*100;选股:涨幅>5&&V>O;"),
    ],
)  # fmt: skip
def test_it_means_what_it_means_in_half_width(pasted: str, meant: str) -> None:
    assert meaning(pasted) == meaning(meant)


def test_texts_between_quotes_and_places_stay_as_they_are_written() -> None:
    text = "DRAWTEXT(C>O,L,'ＡＢ');Ａ：＝ＣＯＲＳＳ（Ｃ，Ｏ）；Ａ"
    with pytest.raises(RuleFileError) as error:
        checked(text)
    (finding,) = error.value.findings
    assert (finding.column, finding.width, finding.source) == (text.index("ＣＯＲＳＳ") + 1, 5, text)
    assert finding.hint == "did you mean CROSS?"


ARGUMENTS = {
    "IFF": "C>O,H,L", "IFN": "C>O,H,L", "EXPMA": "C,12", "MEMA": "C,5", "REFV": "C,1", "SGN": "C-O", "UPNDAY": "C,3",
    "DOWNNDAY": "C,3", "NDAY": "C,O,3",
}  # fmt: skip
MEANT = {
    "IFF": "IF(C>O,H,L)", "IFN": "IF(C>O,L,H)", "EXPMA": "EMA(C,12)", "MEMA": "SMA(C,5,1)", "REFV": "REF(C,1)",
    "SGN": "SIGN(C-O)", "UPNDAY": "EVERY(C>REF(C,1),3)", "DOWNNDAY": "EVERY(C<REF(C,1),3)", "NDAY": "EVERY(C>O,3)",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SHORTHANDS))
def test_a_shorthand_is_read_as_what_it_stands_for(name: str) -> None:
    assert meaning(f"{name}({ARGUMENTS[name]})>0") == meaning(f"{MEANT[name]}>0")


@pytest.mark.parametrize("name", sorted(SHORTHANDS))
def test_a_shorthand_with_too_few_arguments_says_what_it_is(name: str) -> None:
    with pytest.raises(RuleFileError) as error:
        checked(f"{name}()>0")
    (finding,) = error.value.findings
    assert finding.hint == f"{SHORTHANDS[name].written} is {SHORTHANDS[name].meant}"


@pytest.mark.parametrize("name", sorted([*UNAVAILABLE, *ELSEWHERE, *FUTURE]))
def test_what_a_chart_has_and_a_rule_has_not_is_refused_with_a_way_out(name: str) -> None:
    for text in (f"{name}(C,1)>0", f"{name}('60')>0", f"{name}>0", f"A:IF(C>O,C,{name});A>0"):
        with pytest.raises(RuleFileError) as error:
            checked(text)
        finding = error.value.findings[0]
        assert finding.message.startswith(name)
        assert finding.hint


def test_a_name_that_a_chart_has_may_be_the_formulas_own() -> None:
    assert meaning("CODE:=MA(C,5);DATE:=CODE;C>DATE")[-1] == "C>DATE"


@pytest.mark.parametrize(
    ("text", "column", "hint"),
    [
        ("C≥O", 2, "write >="),
        ("C≤O", 2, "write <="),
        ("C≠O", 2, "write <>"),
        ("C^2>1", 2, "write POW(A,B)"),
        ("KDJ.J<0", 4, 'an output of a shipped formula stands in quotes: "MACD.DIF"(12,26,9)'),
        ("5日线:=MA(C,5);C>5日线", 2, "write it the other way round, as in 日线5"),
        ("“SH000001$CLOSE>1", 1, "end it with “ on the same line"),
        ("A=MA(C,5);C>A", 1, "assign it with :="),
    ],
)
def test_signs_and_names_of_other_languages_are_refused_at_their_place(text: str, column: int, hint: str) -> None:
    with pytest.raises(RuleFileError) as error:
        checked(text)
    assert (error.value.findings[0].column, error.value.findings[0].hint) == (column, hint)


@pytest.mark.parametrize(("text", "told"), [("TIME>=1430", True), ("1455<TIME", True), ("TIME>=143000", False)])
def test_a_time_without_its_seconds_is_warned_of(text: str, told: bool) -> None:
    warnings = [one.message for one in checked(text).warnings]
    assert any("TIME is HHMMSS" in one for one in warnings) is told


def test_a_formula_cut_off_by_a_comma_of_yaml_is_to_be_quoted() -> None:
    text = "version: 1\ngroups:\n- name: g\n  rules:\n  - {id: a, select: all, when: CROSS(LAST, 10), freq: once}\n"
    with pytest.raises(RuleFileError) as error:
        load({"r.yaml": text})
    assert error.value.findings[0].hint == "quote the formula: inside { } a comma ends it"


@pytest.mark.parametrize("formula", ["{金叉} CROSS(C,MA(C,5))", "%C>5", "'ST'=C AND 1", "A: MA(C,5)"])
def test_a_formula_that_is_no_yaml_belongs_into_a_block(formula: str) -> None:
    text = f"version: 1\ngroups:\n- name: g\n  rules:\n  - id: a\n    select: all\n    when: {formula}\n"
    with pytest.raises(RuleFileError) as error:
        load({"r.yaml": text})
    assert error.value.findings[0].line == 7
    assert error.value.findings[0].hint == (
        "write the formula below when: | and indent it: there YAML leaves { % # ' and : alone"
    )


def test_a_script_of_a_forum_is_taken_as_it_stands() -> None:
    script = """\
      {老鸭头选股 通达信}
      ＭＡ５：＝ＭＡ（ＣＬＯＳＥ，５）；
      MA10:=MA(CLOSE,10);MA60:=MA(CLOSE,60);
      均量:=MA(VOL,5),COLORYELLOW,LINETHICK2; // 五日均量
      放量:VOL>1.5*REF(均量,1);
      STICKLINE(放量,0,1,3,0),COLORRED;
      DRAWTEXT(放量,LOW*0.98,'起爆'),COLORRED;
      选股:CROSS(MA5,MA10) AND C>MA60 AND 放量 AND UPNDAY(C,2),NODRAW;
"""
    rule = "  - id: 老鸭头\n    select: all\n    period: 1d\n    cooldown: 10m\n    when: |\n"
    text = f"version: 1\ngroups:\n- name: 论坛\n  rules:\n{rule}{script}"
    found = load({"r.yaml": text})
    assert found.warnings == ()
    (leg,) = found.rules[0].legs
    assert [one.written for one in leg.when.outputs] == ["放量", "选股"]
    condition = leg.when.statements[leg.when.condition].expr
    assert normal(condition) == "CROSS(MA5,MA10) AND C>MA60 AND 放量 AND EVERY(C>REF(C,1),2)"
