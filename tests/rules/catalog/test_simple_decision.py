"""The shipped decision against pandas, bar by bar, and what its events say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from feeds.sessions import unix_ms
from rules.evaluate import BarTable, evaluate
from rules.rule import Rule
from rules.rulefile import load

SURE = {"buy": 75, "sell": 70, "hold": 65}
BARS = 400


def shipped(params: str = "") -> dict[str, Rule]:
    uses = "".join(f"  - {{use: decision-{name}{params}}}\n" for name in SURE)
    found = load({"f": f"version: 1\ngroups:\n- name: g\n  rules:\n{uses}"})
    assert found.warnings == ()
    return {rule.id.removeprefix("decision-"): rule for rule in found.rules}


def closes(seed: int) -> pd.Series:
    """A walk with ties, calm and wild stretches."""
    random = np.random.default_rng(seed)
    wild = np.repeat(random.choice([0.0, 0.005, 0.03], BARS // 20), 20)
    return pd.Series((10 * np.exp(np.cumsum(random.normal(0, 1, BARS) * wild))).round(2))


def by_pandas(close: pd.Series) -> pd.DataFrame:
    """The decision of the system before, with Wilder's RSI: its averages begin with the first change."""
    fast, slow, change = close.rolling(5).mean(), close.rolling(20).mean(), close.diff()
    up, moved = (one.ewm(alpha=1 / 14, adjust=False).mean() for one in (change.clip(lower=0), change.abs()))
    rsi = up / moved.where(moved > 0) * 100
    known = slow.notna() & rsi.notna()
    buy = (close - fast > 1e-7) & (fast - slow > 1e-7) & (rsi > 30) & (rsi < 70)
    sell = (slow - close > 1e-7) | (rsi > 70)
    return pd.DataFrame({"buy": buy, "sell": sell, "hold": ~buy & ~sell}).where(known)


def bars(close: pd.Series) -> BarTable:
    ends = np.array([unix_ms(20_250_102, 15 * 3_600_000) + day * 86_400_000 for day in range(len(close))])
    price = close.to_numpy()
    return BarTable(
        period="1d", symbol=np.array(["600519.SH"] * len(close)), ts_end=ends, open=price, high=price, low=price,
        close=price, volume_lots=np.ones(len(close)), amount_cny=price * 100, suspended=np.zeros(len(close), bool),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_one_of_three_is_true_where_pandas_has_it(seed: int) -> None:
    close = closes(seed)
    expected, table, rules = by_pandas(close), bars(close), shipped()
    found = {name: evaluate(rule.legs[0].when, table) for name, rule in rules.items()}
    told = pd.DataFrame({name: one.condition for name, one in found.items()})
    assert not (told[:19] == 1).any(axis=None)
    known = told[19:]
    pd.testing.assert_frame_equal(known, expected[19:].astype(float), check_names=False)
    assert (known.sum(axis=1) == 1).all()
    assert (known.sum() > 5).all()
    for name, one in found.items():
        assert set(one.outputs["CONFIDENCE"]) == {SURE[name]}


def test_an_event_says_how_sure_and_why() -> None:
    for name, rule in shipped().items():
        assert (rule.labels["kind"], rule.labels["decision"]) == ("decision", name)
        named = {output.name for output in rule.legs[0].when.outputs}
        assert {"SLOWMA", "STRENGTH", "CONFIDENCE"} <= named
        assert {"CONFIDENCE", "SLOWMA", "STRENGTH"} <= set(rule.messages["fire"].names)
