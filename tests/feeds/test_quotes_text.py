"""Records of the public quote pages: fields, units, what is no number, what is no record."""

from __future__ import annotations

from math import isnan

import pytest

from feeds.quotes_text import PAGES, Quote, code_of, split, symbol_of
from tests.feeds.quote_page import NOT_OPENED, TEN, Stock, sina, tencent

WRITE = {"tencent": tencent, "sina": sina}


def read(vendor: str, stock: Stock, code: str = "sh600519") -> Quote:
    answer = split(WRITE[vendor](code, stock))
    symbol = symbol_of(code)
    quote = PAGES[vendor].quote(symbol, answer.records[symbol])
    assert quote is not None
    return quote


def test_codes_and_symbols_are_each_others_inverse() -> None:
    assert code_of("600519.SH") == "sh600519"
    assert symbol_of("bj920118") == "920118.BJ"


@pytest.mark.parametrize("vendor", sorted(PAGES))
def test_both_pages_tell_the_same_of_the_same_stock(vendor: str) -> None:
    quote = read(vendor, Stock())
    assert (quote.symbol, quote.name) == ("600519.SH", "贵州茅台")
    tick = quote.tick
    assert tick["time"] == TEN
    assert [tick[name] for name in ("lastPrice", "open", "high", "low", "lastClose")] == [10.05, 10.0, 10.5, 9.5, 9.9]
    assert tick["amount"] == 12_345_670
    assert tick["openInt"] == 0
    book = quote.book()
    assert book["bidPrice"] == pytest.approx([10.04, 10.03, 10.02, 10.01, 10.0])
    assert book["askPrice"] == pytest.approx([10.05, 10.06, 10.07, 10.08, 10.09])
    assert book["bidVol"] == book["askVol"] == pytest.approx([7, 8, 9, 10, 11])


def test_volume_stands_as_the_page_counts_it() -> None:
    assert read("tencent", Stock()).tick["volume"] == 12_345
    assert read("tencent", Stock(), "sh688001").tick["volume"] == 1_234_567
    assert read("sina", Stock()).tick["volume"] == 1_234_567


@pytest.mark.parametrize(
    ("vendor", "symbol", "unit"),
    [
        ("tencent", "600519.SH", "lots"),
        ("tencent", "688001.SH", "shares"),
        ("tencent", "000001.SH", "lots"),
        ("sina", "600519.SH", "shares"),
        ("sina", "000001.SH", "lots"),
        ("sina", "399001.SZ", "shares"),
    ],
)
def test_each_page_has_its_own_unit_of_volume(vendor: str, symbol: str, unit: str) -> None:
    assert PAGES[vendor].volume_unit(symbol) == unit


def test_tencents_limits_are_read_and_ten_thousand_is_none() -> None:
    assert read("tencent", Stock()).limits == (10.89, 8.91)
    assert all(map(isnan, read("tencent", Stock(limit_up=10_000.0, limit_down=0.0)).limits))
    assert all(map(isnan, read("sina", Stock()).limits))


def test_tencents_amount_is_exact_where_the_triple_has_it_else_rounded() -> None:
    record = split(tencent("sh600519", Stock(amount=12_345_678.0))).records["600519.SH"]
    page = PAGES["tencent"]
    exact, rounded = page.quote("600519.SH", record), page.quote("600519.SH", record.replace(b"/12345678", b""))
    assert exact is not None
    assert rounded is not None
    assert exact.tick["amount"] == 12_345_678
    assert rounded.tick["amount"] == 12_350_000


@pytest.mark.parametrize("vendor", sorted(PAGES))
def test_a_suspended_stock_has_no_price_and_says_so(vendor: str) -> None:
    quote = read(vendor, Stock(status="suspended", last=9.9))
    assert (quote.tick["lastPrice"], quote.tick["openInt"], quote.tick["lastClose"]) == (0.0, 1.0, 9.9)


@pytest.mark.parametrize("vendor", sorted(PAGES))
def test_an_unopened_stock_is_all_zero_but_its_previous_close(vendor: str) -> None:
    quote = read(vendor, NOT_OPENED)
    tick, book = quote.tick, quote.book()
    assert [tick[name] for name in ("lastPrice", "open", "high", "low", "volume", "amount")] == [0.0] * 6
    assert tick["lastClose"] == 9.9
    assert book["bidPrice"] == book["bidVol"] == [0.0] * 5


def test_an_unknown_code_is_known_as_such_from_sina_and_left_out_by_tencent() -> None:
    answer = split(b'var hq_str_sh600001="";\n' + sina("sh600519", Stock()))
    assert (set(answer.records), answer.unknown, answer.garbled) == ({"600519.SH"}, {"600001.SH"}, 0)
    none = split(b'v_pv_none_match="1";\n')
    assert (none.records, none.garbled, none.empty) == ({}, 0, False)
    assert split(b" \n").empty


def test_one_garbled_record_costs_the_others_nothing() -> None:
    good = [tencent(code, Stock()) for code in ("sh600519", "sz000001")]
    for broken in (good[0][:100] + b"\n", b'v_sh60051="1~x";\n', b"\x00\xff\xfe\n", b'v_sh600519=1~x~600519";\n'):
        answer = split(good[0] + broken + good[1])
        assert set(answer.records) == {"600519.SH", "000001.SZ"}
        assert answer.garbled == 1


def test_records_on_one_line_are_records_too() -> None:
    body = sina("sh600519", Stock()).replace(b"\n", b"") + sina("sz000001", Stock())
    assert set(split(body).records) == {"600519.SH", "000001.SZ"}


def test_a_name_that_is_no_gbk_costs_the_name_alone() -> None:
    record = tencent("sh600519", Stock()).replace("茅".encode("gbk"), b"\xff\x20")
    quote = PAGES["tencent"].quote("600519.SH", split(record).records["600519.SH"])
    assert quote is not None
    assert quote.name is None
    assert quote.tick["lastPrice"] == 10.05


def test_a_character_whose_second_byte_is_the_separator_splits_nothing() -> None:
    assert "亊".encode("gbk").endswith(b"~"), "the trap: 0x7e is a second byte in GBK"
    assert read("tencent", Stock(name="亊业股份")).name == "亊业股份"
    assert read("tencent", Stock(name="亊业股份")).tick["lastPrice"] == 10.05


def test_blanks_in_a_name_are_no_part_of_it() -> None:
    assert read("tencent", Stock(name="五 粮 液")).name == "五粮液"


@pytest.mark.parametrize(
    ("field", "bad"), [(b"~10.05~", b"~abc~"), (b"20250102100000", b"20250199100000"), (b"100000~", b"250000~")]
)
def test_a_field_that_cannot_be_is_left_for_the_decoder_to_count(field: bytes, bad: bytes) -> None:
    record = split(tencent("sh600519", Stock())).records["600519.SH"].replace(field, bad, 1)
    quote = PAGES["tencent"].quote("600519.SH", record)
    assert quote is not None
    assert quote.tick["lastPrice"] == "abc" or quote.tick["time"] == 0


@pytest.mark.parametrize("vendor", sorted(PAGES))
def test_a_record_of_too_few_fields_or_of_another_code_is_none(vendor: str) -> None:
    page = PAGES[vendor]
    assert page.quote("600519.SH", b"1~x~600519~10" if vendor == "tencent" else b"x,10,10") is None
    if vendor == "tencent":
        assert page.quote("600000.SH", split(tencent("sh600519", Stock())).records["600519.SH"]) is None


@pytest.mark.parametrize("field", ["2025010210000①", "2025010210000²", "2025010②100000", "2025010210000٣"])
def test_a_digit_that_is_none_makes_no_time(field: str) -> None:
    """What a garbled byte may decode to: `str.isdigit` says yes to some that `int` refuses."""
    body = tencent("sh600519", Stock()).decode("gbk").replace("20250102100000", field).encode("gb18030")
    quote = PAGES["tencent"].quote("600519.SH", split(body).records["600519.SH"])
    assert quote is not None
    assert quote.tick["time"] == 0.0
