"""docs/asyncapi.yaml says what the gateway does: every word of the protocol is in it, and what is said fits it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from ruamel.yaml import YAML

from feeds.tick import CORE, TickBatch
from monitord.gateway.protocol import CloseCode, ErrorCode
from rules.alert import Event
from tests.monitord.gateway.stand import SECRET, Talk, standing, token

FILE = Path(__file__).parents[3] / "docs" / "asyncapi.yaml"
DOCUMENT: Mapping[str, Any] = YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))
PARTS = DOCUMENT["components"]


def fits(message: object, name: str) -> bool:
    """Tell whether a message is one of this name."""
    schema = {"$ref": f"#/components/messages/{name}/payload", "components": PARTS}
    return bool(jsonschema.Draft202012Validator(schema).is_valid(message))


def names_of(message: object, operation: str) -> list[str]:
    """Return which messages of an operation this is."""
    listed = DOCUMENT["operations"][operation]
    refs = [*listed["messages"], *listed.get("reply", {}).get("messages", ())]
    return [name for ref in refs if fits(message, name := ref["$ref"].rpartition("/")[2])]


def resolved(ref: str) -> Any:
    found: Any = DOCUMENT
    for key in ref.removeprefix("#/").split("/"):
        found = found[key]
    return found


def refs(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for one in value.values() for ref in refs(one)]
    return [ref for one in value for ref in refs(one)] if isinstance(value, list) else []


def test_every_reference_leads_somewhere() -> None:
    for ref in refs(DOCUMENT):
        assert resolved(ref), ref


def test_every_code_of_errors_closes_and_events_is_in_it() -> None:
    error = PARTS["messages"]["refusal"]["payload"]["properties"]["error"]
    assert set(error["properties"]["code"]["enum"]) == set(map(int, ErrorCode))
    assert set(PARTS["x-close-codes"]) == set(map(int, CloseCode))
    assert set(PARTS["schemas"]["record"]["properties"]["event"]["enum"]) == set(map(str, Event))


@pytest.mark.parametrize(
    "said",
    [
        {"id": 1, "op": "auth", "token": "x"},
        {"id": "a", "op": "subscribe", "args": [{"ch": "alerts", "since": {"epoch": "old", "off": 10431}}]},
        {"id": None, "op": "subscribe", "args": ["health", {"ch": "tick:600519.SH", "interval_ms": 500}]},
        {"op": "unsubscribe", "args": [{"ch": "alerts:sev:page"}]},
        {"op": "ping"},
    ],
)
async def test_what_it_lets_a_client_say_is_served(said: dict[str, Any]) -> None:
    assert names_of(said, "say") == [said["op"]]
    async with standing(tokens=(token(secret="x"),)) as stand:
        talk = await stand.connect(headers={"Authorization": "Bearer x"})
        if said["op"] == "unsubscribe":
            await talk.ask({"id": 0, "op": "subscribe", "args": said["args"]})
        reply = await talk.ask({"id": 7, **said}) if "id" not in said else await talk.ask(said)
        assert names_of(reply, "say") == ["reply"]


@pytest.mark.parametrize(
    "said",
    [
        {"op": "subscribe", "args": []},
        {"op": "subscribe", "args": [{"ch": "weather"}]},
        {"op": "subscribe", "args": [{"ch": "alerts", "since": {"epoch": "e", "off": -1}}]},
        {"op": "subscribe", "args": [{"ch": "tick:600519.SH", "interval_ms": 60_001}]},
        {"op": "dance"},
        {"op": "auth"},
    ],
)
async def test_what_it_does_not_allow_is_refused_as_it_says(said: dict[str, Any]) -> None:
    assert names_of(said, "say") == []
    async with standing() as stand:
        talk = await stand.connect()
        assert names_of(await talk.ask({"id": 1, **said}), "say") == ["refusal"]


async def test_everything_a_client_hears_is_in_it() -> None:
    async with standing(tokens=(token(),), heartbeat_s=0.05) as stand:
        columns = {name: np.array([1.0 if name == "last" else np.nan]) for name in CORE}
        stand.board.update(TickBatch(("600519.SH",), np.array([1]), columns=columns))
        talk = await stand.connect()
        channels = ["alerts", "alerts:sym:600519.SH", "tick:600519.SH", "health"]
        await talk.say({"id": 1, "op": "auth", "token": SECRET}, {"id": 2, "op": "subscribe", "args": channels})
        heard = await heard_until(talk, {"heartbeat", "reply", "tick", "health"})
        stand.alerts.publish()
        heard |= await heard_until(talk, {"alert"})
        await stand.gateway.stop()
        assert heard | await heard_until(talk, {"notice"}) == {
            "reply", "alert", "tick", "health", "heartbeat", "notice",
        }  # fmt: skip


async def heard_until(talk: Talk, wanted: set[str]) -> set[str]:
    """Listen until all of these came; return what came. Everything must be exactly one of the messages."""
    heard: set[str] = set()
    while not wanted <= heard:
        message = await talk.hear_any()
        names = names_of(message, "hear") or names_of(message, "say")
        assert len(names) == 1, (message, names)
        heard.update(names)
    return heard
