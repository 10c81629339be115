from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monitord.__main__ import main

N = 40


@pytest.fixture
def frame() -> pd.DataFrame:
    """Two stocks, 40 one-minute bars each, and 5 bars of five minutes of one of them."""
    generator = np.random.default_rng(7)
    parts = []
    for symbol, period, n in (("600519.SH", "1m", N), ("000001.SZ", "1m", N), ("600519.SH", "5m", 5)):
        close = np.round(20 + generator.normal(0, 0.1, n).cumsum(), 2)
        parts.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "period": period,
                    "ts_end": 1675215060000 + 60_000 * np.arange(n),
                    "open": close,
                    "high": close + 0.05,
                    "low": close - 0.05,
                    "close": close,
                    "volume_lots": generator.integers(1, 100, n).astype(float),
                    "amount_cny": np.nan,
                    "suspended": False,
                    "vendor_note": "ignored",
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def bars(frame: pd.DataFrame, tmp_path: Path) -> Path:
    frame.to_parquet(tmp_path / "bars.parquet")
    return tmp_path / "bars.parquet"


def evaluate(*argv: object, formula: str = "DIF:EMA(C,3)-EMA(C,6);Mid:MA(C,4);CROSS(C,Mid)") -> int:
    return main(["eval", "--formula", formula, *map(str, argv)])


def oracle(frame: pd.DataFrame) -> pd.DataFrame:
    """The same by pandas, symbol by symbol."""
    parts = []
    for symbol, rows in frame[frame["period"] == "1m"].groupby("symbol", sort=False):
        close = rows["close"]
        mid = close.rolling(4).mean()
        above = close > mid + 1e-9 * np.maximum(1, mid)
        below_before = (close <= mid + 1e-9 * np.maximum(1, mid)).shift(fill_value=False) & mid.shift().notna()
        dif = close.ewm(span=3, adjust=False).mean() - close.ewm(span=6, adjust=False).mean()
        cross = (above & below_before).astype(float)
        parts.append(
            pd.DataFrame({"symbol": symbol, "ts_end": rows["ts_end"], "DIF": dif, "Mid": mid, "condition": cross})
        )
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_outputs_stand_beside_symbol_and_time_as_written_in_the_formula(
    extension: str, bars: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    output = tmp_path / f"out.{extension}"
    assert evaluate("--bars", bars, "--period", "1m", "--output", output) == 0
    found = pd.read_csv(output) if extension == "csv" else pd.read_parquet(output)
    pd.testing.assert_frame_equal(found, oracle(frame), check_dtype=False, rtol=1e-9, atol=1e-12)
    assert found["condition"].sum() > 0


def test_csv_bars_give_what_parquet_bars_give(bars: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "bars.csv", index=False)
    for name in ("bars.parquet", "bars.csv"):
        assert evaluate("--bars", tmp_path / name, "--period", "1m", "--output", tmp_path / f"{name}.out.csv") == 0
    assert (tmp_path / "bars.csv.out.csv").read_bytes() == (tmp_path / "bars.parquet.out.csv").read_bytes()


def test_the_same_bars_give_the_same_bytes(bars: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for output in outputs:
        assert evaluate("--bars", bars, "--period", "1m", "--output", output) == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_the_formula_may_stand_in_a_file(bars: Path, tmp_path: Path) -> None:
    (tmp_path / "macd.tdx").write_text("{多头} 涨:C>REF(C,1);", encoding="utf-8")
    output = tmp_path / "out.csv"
    argv = ["eval", "--formula-file", str(tmp_path / "macd.tdx"), "--bars", str(bars), "--period", "5m"]
    assert main([*argv, "--output", str(output)]) == 0
    found = pd.read_csv(output)
    assert list(found.columns) == ["symbol", "ts_end", "涨", "condition"]
    assert len(found) == 5
    assert np.isnan(found["condition"][0])


def test_a_suspended_bar_is_unknown_and_leaves_no_trace(frame: pd.DataFrame, tmp_path: Path) -> None:
    rows = frame[(frame["symbol"] == "600519.SH") & (frame["period"] == "1m")].copy()
    rows["suspended"] = rows.index == 10
    rows.loc[10, "close"] = 999.0
    rows.to_parquet(tmp_path / "with.parquet")
    rows.drop(index=10).to_parquet(tmp_path / "without.parquet")
    for name in ("with", "without"):
        assert evaluate("--bars", tmp_path / f"{name}.parquet", "--output", tmp_path / f"{name}.out.parquet") == 0
    found = pd.read_parquet(tmp_path / "with.out.parquet")
    assert found.loc[10, ["DIF", "Mid", "condition"]].isna().all()
    other = pd.read_parquet(tmp_path / "without.out.parquet")
    pd.testing.assert_frame_equal(found.drop(index=10).reset_index(drop=True), other)


# ── what cannot be used: code 2, and what, where, what to do ──────────────────────────────────────────────────────


def refused(capsys: pytest.CaptureFixture[str], *argv: object, formula: str = "C>0") -> str:
    assert evaluate(*argv, formula=formula) == 2
    return capsys.readouterr().err


def test_several_periods_need_a_choice(bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, "--bars", bars, "--output", tmp_path / "o.csv")
    assert "holds the periods 1m, 5m; choose one with --period" in err


def test_a_period_that_is_not_there_is_said(bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, "--bars", bars, "--period", "1d", "--output", tmp_path / "o.csv")
    assert "has no bars of 1d; it holds 1m, 5m" in err


def test_bars_without_a_period_need_its_name(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame[frame["period"] == "1m"].drop(columns="period").to_csv(tmp_path / "bars.csv", index=False)
    assert "--period 1m|5m" in refused(capsys, "--bars", tmp_path / "bars.csv", "--output", tmp_path / "o.csv")
    assert evaluate("--bars", tmp_path / "bars.csv", "--period", "1m", "--output", tmp_path / "o.csv") == 0


@pytest.mark.parametrize("column", ["symbol", "ts_end", "close"])
def test_a_missing_column_is_named(
    column: str, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame.drop(columns=column).to_parquet(tmp_path / "bars.parquet")
    err = refused(capsys, "--bars", tmp_path / "bars.parquet", "--period", "1m", "--output", tmp_path / "o.csv")
    assert f"no column {column};" in err


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("close", "much", "column close holds no numbers"),
        ("ts_end", "09:31", "column ts_end holds"),
        ("suspended", "perhaps", "column suspended holds"),
    ],
)
def test_a_column_of_the_wrong_kind_is_named(
    column: str, value: str, complaint: str, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame[column] = value
    frame.to_csv(tmp_path / "bars.csv", index=False)
    err = refused(capsys, "--bars", tmp_path / "bars.csv", "--period", "1m", "--output", tmp_path / "o.csv")
    assert complaint in err


@pytest.mark.parametrize("name", ["gone.parquet", "broken.parquet", "empty.csv", "bars.xlsx"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "empty.csv").touch()
    err = refused(capsys, "--bars", tmp_path / name, "--output", tmp_path / "o.csv")
    assert err.startswith(f"monitord: {tmp_path / name}: ")
    assert "Traceback" not in err


def test_an_output_of_unknown_form_is_refused_before_the_work(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "neither .parquet nor .csv" in refused(capsys, "--bars", bars, "--output", tmp_path / "o.xlsx")


def test_an_output_that_cannot_be_written_leaves_nothing(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(capsys, "--bars", bars, "--period", "1m", "--output", tmp_path / "no" / "o.csv")
    assert "cannot be written" in err
    assert not (tmp_path / "no").exists()


def test_a_wrong_formula_shows_its_place(bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, "--bars", bars, "--period", "1m", "--output", tmp_path / "o.csv", formula="CORSS(C,MA(C,5))")
    assert "formula:1:1: error" in err
    assert "^^^^^" in err
    assert "did you mean CROSS?" in err


def test_an_output_named_like_a_column_is_refused(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(capsys, "--bars", bars, "--period", "1m", "--output", tmp_path / "o.csv", formula="condition:C>0")
    assert "'condition'" in err


def test_recorded_minutes_give_macd_as_pandas_does(market_data: Path, tmp_path: Path) -> None:
    file = market_data / "bars" / "1m-000001-201801.parquet"
    formula = "DIF:EMA(CLOSE,12)-EMA(CLOSE,26);DEA:EMA(DIF,9);DIF>DEA"
    assert evaluate("--bars", file, "--output", tmp_path / "o.parquet", formula=formula) == 0
    found, close = pd.read_parquet(tmp_path / "o.parquet"), pd.read_parquet(file)["close"]
    dif = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
    dea = dif.ewm(span=9, adjust=False).mean()
    np.testing.assert_allclose(found["DIF"], dif, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["DEA"], dea, rtol=1e-9, atol=1e-12)
    clear = (dif - dea).abs() > 1e-8
    assert (found["condition"].to_numpy()[clear] == (dif > dea).to_numpy()[clear]).all()
