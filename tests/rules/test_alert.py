"""The record of an event."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.alert import SHANGHAI, Alert, Draft, Event, Identities, identities, identity, shanghai_iso, stamp_published


def alert(**fields: Any) -> Alert:
    given: dict[str, Any] = {
        "id": "al_1", "episode_id": "ep_1", "event": Event.FIRE, "rule": "brk", "rev": "9f", "symbol": "600519.SH",
        "name": "贵州茅台", "trade_date": "2023-02-01", "episode": 3, "ts_event_ms": 1675216923000, "period": "tick",
        "values": {"LAST": 1849.0, "MA5": None},
    }  # fmt: skip
    return Alert(**{**given, **fields})


def test_the_json_has_the_documented_keys_in_the_documented_order() -> None:
    record = orjson.loads(alert(stamps={"recv_ms": 1}).to_json())
    assert list(record) == [
        "v", "id", "episode_id", "event", "type", "rule", "rev", "leg", "symbol", "group", "name", "severity", "labels",
        "trade_date", "episode", "event_ts", "ts_event_ms", "period", "bar_end_ms", "provisional", "gap", "late",
        "values", "tick", "suppressed", "why", "message", "stamps",
    ]  # fmt: skip
    assert (record["v"], record["type"]) == (1, "alert.fire")
    assert record["event_ts"] == "2023-02-01T10:02:03.000+08:00"


def test_a_record_comes_back_as_the_alert_it_was() -> None:
    told = alert(stamps={"recv_ms": 1}, tick={"last": 1849.0}, labels={"kind": "price"})
    assert Alert.from_json(told.to_json()) == told


def test_half_a_character_in_an_alert_stops_nobody() -> None:
    half = alert(name="x\ud800", labels={"\udc00": "ok"}, message="茅台")
    assert Alert.from_json(half.to_json()) == alert(name="x\ufffd", labels={"\ufffd": "ok"}, message="茅台")


def test_replayed_events_bear_no_stamps() -> None:
    assert b"stamps" not in alert().to_json()


def test_a_newer_writers_extra_keys_do_not_stop_a_reader() -> None:
    record = {**orjson.loads(alert().to_json()), "colour": "red"}
    assert Alert.from_record(record) == alert()


@pytest.mark.parametrize("spoil", [{"v": 2}, {"v": None}, {"event": "burst"}])
def test_what_is_no_record_of_this_version_is_refused(spoil: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"version|burst"):
        Alert.from_record({**orjson.loads(alert().to_json()), **spoil})


def test_a_record_without_its_rule_is_refused() -> None:
    record = orjson.loads(alert().to_json())
    del record["rule"]
    with pytest.raises(ValueError, match="rule"):
        Alert.from_record(record)


def test_the_time_of_publishing_is_stamped_without_decoding() -> None:
    record = alert(stamps={"recv_ms": 1, "evaluated_ms": 2}).to_json()
    assert orjson.loads(stamp_published(record, 3)) == {
        **orjson.loads(record), "stamps": {"recv_ms": 1, "evaluated_ms": 2, "published_ms": 3},
    }  # fmt: skip
    assert stamp_published(alert().to_json(), 3) == alert().to_json()


def test_identities_tell_none_from_empty_and_parts_from_their_sum() -> None:
    assert len({identity("a", None), identity("a", ""), identity("a"), identity("", "a")}) == 4


def test_times_are_written_in_shanghai() -> None:
    assert shanghai_iso(1675216923456) == "2023-02-01T10:02:03.456+08:00"


@given(st.integers(-(10**12), 4 * 10**12))
def test_a_time_is_written_as_a_datetime_writes_it(ts_ms: int) -> None:
    written = datetime.fromtimestamp(ts_ms / 1000, SHANGHAI).isoformat(timespec="milliseconds")
    assert shanghai_iso(ts_ms) == written


def test_stamps_given_when_it_is_encoded_come_behind_those_it_bears() -> None:
    assert alert().to_json(recv_ms=1).endswith(b'"stamps":{"recv_ms":1}}')
    stamped = alert(stamps={"recv_ms": 1, "evaluated_ms": 2})
    assert stamped.to_json(evaluated_ms=3).endswith(b'"stamps":{"recv_ms":1,"evaluated_ms":3}}')
    assert stamped.stamps == {"recv_ms": 1, "evaluated_ms": 2}


def test_a_sealed_draft_is_the_alert_and_frozen() -> None:
    draft = Draft()
    for name in Alert.__dataclass_fields__:
        setattr(draft, name, getattr(alert(), name))
    made = draft.sealed()
    assert type(made) is Alert
    assert made == alert()
    assert made.to_json() == alert().to_json()
    with pytest.raises(FrozenInstanceError):
        made.rule = "other"  # type: ignore[misc]


@pytest.mark.parametrize("leg", [None, "", "stop"])
@pytest.mark.parametrize("key", [None, "600519.SH"])
@pytest.mark.parametrize("event", Event)
def test_identities_of_a_leg_are_those_of_all_parts(leg: str | None, key: str | None, event: Event) -> None:
    whole = identities("brk", "9f", leg, key, "2023-02-01", 3, event=event)
    assert Identities("brk", "9f", leg).of(key, "2023-02-01", 3, event) == whole
    assert whole[1] == "ep_" + identity("brk", "9f", leg, key, "2023-02-01", 3)
    assert whole[0] == "al_" + identity("brk", "9f", leg, key, "2023-02-01", 3, str(event), 1)
