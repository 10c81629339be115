"""WebSocket frames that nobody should send, with what the gateway has to make of each."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from monitord.gateway.protocol import CloseCode

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
PROTOCOL_ERROR, NO_UTF8, TOO_BIG = 1002, 1007, 1009
STAYS: Final[int | None] = None
"""The connection goes on, and the next request is answered."""
LEAVES: Final = -1
"""It is the client who goes, in the midst of a frame: nothing is to be said, and nothing logged as an error."""
MOST_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Said:
    """Bytes to send, and how it must end: with one of these close codes, STAYS, or LEAVES."""

    kind: str
    wire: bytes
    ends: tuple[int | None, ...]
    leaves: bool = False


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True, reserved: int = 0, size: int | None = None) -> bytes:
    """Write a masked frame; size: the length it claims to have."""
    first = (0x80 if fin else 0) | (reserved << 4) | opcode
    length = len(payload) if size is None else size
    if length < 126:
        head = struct.pack("!BB", first, 0x80 | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, length)
    return head + bytes(4) + payload  # a mask of zeros changes nothing


def said(chance: random.Random) -> Said:
    """Make up the next thing to say."""
    kind = chance.choice(list(KINDS))
    return KINDS[kind](kind, chance)


# ── what is JSON and no request ───────────────────────────────────────────────────────────────────────────────────────

WORDS: Final = ("auth", "subscribe", "unsubscribe", "ping", "alerts", "tick:A.SH", "health", "", "k3f9", "a" * 300)


def _anything(chance: random.Random, depth: int = 3) -> Any:
    kinds = ["none", "bool", "int", "float", "text", "word", *(["list", "dict"] if depth else [])]
    match chance.choice(kinds):
        case "none":
            return None
        case "bool":
            return chance.random() < 0.5
        case "int":
            return chance.choice([0, -1, 10**30, chance.randrange(-1000, 1000)])
        case "float":
            return chance.choice([0.5, 1e308, -0.0])
        case "text":
            letters = [chance.randrange(0x20, 0x7F), chance.randrange(0x4E00, 0x9FFF), 0, 10]
            return "".join(chr(one) for one in chance.choices(letters, k=8))
        case "word":
            return chance.choice(WORDS)
        case "list":
            return [_anything(chance, depth - 1) for _ in range(chance.randrange(4))]
    return {str(_anything(chance, 0)): _anything(chance, depth - 1) for _ in range(chance.randrange(4))}  # fmt: skip


def _request(kind: str, chance: random.Random) -> Said:
    """An object of the right fields with wrong things in them; only a token that is none may end it."""
    want = {name: _anything(chance) for name in ("ch", "since", "interval_ms") if chance.random() < 0.6}
    fields = {"id": _anything(chance), "op": chance.choice([*WORDS[:4], _anything(chance)]),
              "args": chance.choice([[want], _anything(chance)]), "token": _anything(chance)}  # fmt: skip
    request = {name: value for name, value in fields.items() if chance.random() < 0.85}
    ends = (STAYS, CloseCode.BAD_TOKEN) if request.get("op") == "auth" else (STAYS,)
    return Said(kind, frame(json.dumps(request).encode()), ends)


def _no_object(kind: str, chance: random.Random) -> Said:
    texts = ["garbage", "[]", "1", "null", '"x"', "{", '{"a":}', "{}{}", "[" * 500, "\x00", "NaN", "{'a':1}", "é" * 50]
    return Said(kind, frame(chance.choice(texts).encode()), (CloseCode.PROTOCOL,))


def _empty(kind: str, chance: random.Random) -> Said:
    return Said(kind, frame(chance.choice([b"", b" ", b"\n\n", b"\t\n "])), (STAYS,))


def _binary(kind: str, chance: random.Random) -> Said:
    return Said(kind, frame(chance.randbytes(chance.randrange(200)), BINARY), (CloseCode.PROTOCOL,))


# ── what is no WebSocket ──────────────────────────────────────────────────────────────────────────────────────────────


def _no_utf8(kind: str, chance: random.Random) -> Said:
    return Said(kind, frame(b'{"op":"' + chance.choice([b"\xff", b"\xc3\x28", b"\xed\xa0\x80"]) + b'"}'), (NO_UTF8,))


def _too_big(kind: str, chance: random.Random) -> Said:
    size = chance.choice([MOST_BYTES + 1, 1 << 20, 1 << 40])
    return Said(kind, frame(b"x" * 100, size=size), (TOO_BIG, PROTOCOL_ERROR))


def _too_big_in_parts(kind: str, chance: random.Random) -> Said:
    part = b"x" * 40_000
    return Said(kind, frame(part, fin=False) + frame(part, 0), (TOO_BIG,))


def _reserved_bits(kind: str, chance: random.Random) -> Said:
    return Said(kind, frame(b"{}", reserved=chance.randrange(1, 8)), (PROTOCOL_ERROR,))


def _no_opcode(kind: str, chance: random.Random) -> Said:
    return Said(kind, frame(b"{}", chance.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15])), (PROTOCOL_ERROR,))


def _odd_parts(kind: str, chance: random.Random) -> Said:
    """A continuation of nothing, or a text within a text."""
    wire = chance.choice([frame(b"x", 0), frame(b"x", fin=False) + frame(b"y", TEXT)])
    return Said(kind, wire, (PROTOCOL_ERROR,))


def _long_control(kind: str, chance: random.Random) -> Said:
    return Said(kind, frame(b"x" * 126, chance.choice([PING, PONG, CLOSE])), (PROTOCOL_ERROR,))


def _control_in_parts(kind: str, chance: random.Random) -> Said:
    return Said(kind, frame(b"x", chance.choice([PING, CLOSE]), fin=False), (PROTOCOL_ERROR,))


def _control(kind: str, chance: random.Random) -> Said:
    return Said(kind, frame(chance.randbytes(chance.randrange(125)), chance.choice([PING, PONG])), (STAYS,))


def _bad_close(kind: str, chance: random.Random) -> Said:
    """A close frame of one byte, of a code that may not be sent, of a reason that is no text."""
    payloads = [b"x", struct.pack("!H", 0), struct.pack("!H", 999), struct.pack("!H", 1000) + b"\xff"]
    return Said(kind, frame(chance.choice(payloads), CLOSE), (PROTOCOL_ERROR, NO_UTF8, 1000))


def _leave(kind: str, chance: random.Random) -> Said:
    """Half a frame, and then nothing but a reset."""
    whole = frame(json.dumps({"op": "subscribe", "id": 1, "args": [{"ch": "alerts"}]}).encode())
    return Said(kind, whole[: chance.randrange(len(whole) + 1)], (LEAVES,), leaves=True)


Make = Callable[[str, random.Random], Said]
KINDS: Final[dict[str, Make]] = {
    "request": _request, "no object": _no_object, "empty": _empty, "binary": _binary, "no UTF-8": _no_utf8,
    "too big": _too_big, "too big in parts": _too_big_in_parts, "reserved bits": _reserved_bits,
    "no opcode": _no_opcode, "odd parts": _odd_parts, "long control": _long_control,
    "control in parts": _control_in_parts, "control": _control, "bad close": _bad_close, "leave": _leave,
}  # fmt: skip
