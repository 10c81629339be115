"""Frames and parsing, against stock implementations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as StockFrame
from websockets.frames import Opcode

from monitord.gateway.protocol import (
    WEBSOCKET,
    ErrorCode,
    NotProtocol,
    Ping,
    Position,
    Published,
    RequestError,
    Subscribe,
    Want,
    channels_of,
    error_reply,
    parse,
    position,
    query_wants,
    text_frame,
)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_a_frame_is_byte_for_byte_what_a_stock_library_makes(size: int) -> None:
    text = b"x" * size
    assert text_frame(text) == StockFrame(Opcode.TEXT, text).serialize(mask=False)


@given(
    epoch=st.text(max_size=10),
    off=st.integers(0, 2**53),
    ch=st.sampled_from(["alerts", "alerts:rule:突破"]),
    alert=st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53) | st.text(max_size=9), max_size=4),
)
def test_a_message_is_one_line_of_json_that_says_what_went_in(
    epoch: str, off: int, ch: str, alert: dict[str, Any]
) -> None:
    text = WEBSOCKET.alert(ch, Published.of(epoch, off, json.dumps(alert).encode()))
    assert b"\n" not in text
    assert json.loads(text) == {"ch": ch, "epoch": epoch, "off": off, "data": alert}


def test_a_pretty_record_is_put_on_one_line() -> None:
    published = Published.of("k3f9", 1, b'{\n "symbol": "A.SH"\r\n}')
    assert published.record == b'{"symbol":"A.SH"}'


@pytest.mark.parametrize("record", [b"", b"[]", b"7", b"{", b"\xff"])
def test_what_is_no_object_is_no_alert(record: bytes) -> None:
    with pytest.raises(ValueError, match=r"(?i)JSON|input|expected|str is not valid"):
        Published.of("k3f9", 1, record)


def test_an_alert_goes_out_on_the_channels_its_fields_name() -> None:
    assert channels_of("A.SH", "brk", "info") == (
        "alerts",
        "alerts:sym:A.SH",
        "alerts:rule:brk",
        "alerts:sev:info",
    )
    assert channels_of(None, "breadth", "info") == (
        "alerts",
        "alerts:rule:breadth",
        "alerts:sev:info",
    )


def test_requests_are_read_as_they_are_written_in_the_documentation() -> None:
    text = (
        '{"id":2,"op":"subscribe","args":[{"ch":"alerts","since":{"epoch":"k3f9","off":10431}},'
        '{"ch":"tick:600519.SH","interval_ms":500}]}'
    )
    wants = (Want("alerts", Position("k3f9", 10431)), Want("tick:600519.SH", interval_ms=500))
    assert parse(text) == Subscribe(2, wants)
    assert parse('{"op":"ping"}') == Ping(None)


def test_a_bad_request_is_answered_under_its_id() -> None:
    with pytest.raises(RequestError) as caught:
        parse('{"id":"mine","op":"subscribe","args":[{"ch":"news"}]}')
    assert caught.value.reply_to == "mine"
    assert json.loads(error_reply(caught.value))["error"]["code"] == ErrorCode.UNKNOWN_CHANNEL


def test_what_cannot_be_read_is_not_quoted() -> None:
    with pytest.raises(NotProtocol) as caught:
        parse('{"op":"auth","token":"s3cret')
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_token_is_not_in_the_repr_of_its_request() -> None:
    assert "s3cret" not in repr(parse('{"op":"auth","token":"s3cret"}'))


@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9]{1,8}:[0-9]{1,18}", fullmatch=True))
def test_a_position_reads_back_or_is_refused(text: str) -> None:
    try:
        place = position(text)
    except RequestError:
        return
    epoch, _, off = text.rpartition(":")
    assert place == Position(epoch, int(off))
    assert epoch
    assert ":" not in epoch


def test_since_of_a_query_goes_with_the_alerts_alone() -> None:
    assert query_wants(["alerts", "health"], "k3f9:7") == (Want("alerts", Position("k3f9", 7)), Want("health"))
