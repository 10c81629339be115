from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds import frame
from feeds.errors import FeedError
from feeds.tick import CORE, REST, TickBatch
from feeds.universe import Universe

doubles = st.floats(width=64, allow_nan=True, allow_infinity=True)
symbols = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\n"), min_size=1, max_size=12)


@st.composite
def batches(draw: st.DrawFn) -> TickBatch:
    n = draw(st.integers(0, 6))

    def column() -> np.ndarray:
        return np.array(draw(st.lists(doubles, min_size=n, max_size=n)), np.float64)

    def integers(dtype: type) -> np.ndarray:
        limits = np.iinfo(dtype)
        numbers = st.integers(int(limits.min), int(limits.max))
        return np.array(draw(st.lists(numbers, min_size=n, max_size=n)), dtype)

    rest = {name: column() for name in draw(st.sets(st.sampled_from(REST), max_size=5))}
    return TickBatch(
        tuple(draw(st.lists(symbols, min_size=n, max_size=n))),
        integers(np.int64),
        columns={name: column() for name in draw(st.sets(st.sampled_from(CORE)))},
        recv_ms=integers(np.int64),
        status=integers(np.int16),
        load=(lambda: rest) if rest else None,
    )


def bits(batch: TickBatch) -> list[bytes]:
    return [batch.ts_event_ms.tobytes(), batch.recv_ms.tobytes(), batch.status.tobytes()] + [
        batch.column(name).tobytes() for name in (*CORE, *REST)
    ]


def market(n: int = 3) -> TickBatch:
    return TickBatch(
        tuple(f"{600000 + row}.SH" for row in range(n)),
        np.arange(n, dtype=np.int64) + 1_675_215_000_000,
        columns={name: np.linspace(1, 2, n) for name in CORE},
        load=lambda: {"bid_price_1": np.linspace(3, 4, n), "trades": np.arange(n, dtype=np.float64)},
    )


@settings(max_examples=200)
@given(batches())
def test_a_batch_comes_back_bit_for_bit(batch: TickBatch) -> None:
    present = {name: batch.has(name) for name in (*CORE, *REST)}
    back = frame.decode(frame.encode(batch))
    assert {name: back.has(name) for name in (*CORE, *REST)} == present
    assert back.symbols == batch.symbols
    assert bits(back) == bits(batch)


@given(batches())
def test_equal_batches_are_equal_bytes(batch: TickBatch) -> None:
    encoded = frame.encode(batch)
    assert frame.encode(frame.decode(encoded)) == encoded


def by_hand(batch: TickBatch, names: tuple[str, ...]) -> bytes:
    """Return the frame as the module's docstring has it."""

    def padded(part: bytes) -> bytes:
        return part + bytes(-len(part) % 8)

    names = tuple(name for name in names if batch.has(name))
    symbols, bits_ = "\n".join(batch.symbols).encode(), sum(1 << frame.COLUMNS.index(name) for name in names)
    numbers = [batch.ts_event_ms, batch.recv_ms, *(batch.column(name) for name in names)]
    columns = b"".join(numpy.tobytes() for numpy in numbers) + padded(batch.status.tobytes())
    body = padded(symbols) + columns
    header = struct.pack("<4sHHIIQ", b"MDTF", 1, 0, len(batch), len(symbols), bits_)
    words = struct.unpack(f"<{(len(header) + len(body)) // 8}Q", header + body)
    return header + struct.pack("<Q", sum(words) % (1 << 64)) + body


@given(batches())
def test_the_bytes_are_those_of_the_layout_and_so_are_the_parts(batch: TickBatch) -> None:
    for columns, names in (("all", (*CORE, *REST)), ("core", CORE)):
        expected = by_hand(batch, names)
        assert frame.encode(batch, columns=columns) == expected  # type: ignore[arg-type]
        assert b"".join(bytes(part) for part in frame.parts(batch, columns=columns)) == expected  # type: ignore[arg-type]


def test_parts_of_whatever_memory_are_the_same_bytes() -> None:
    whole, every_other = market(8), market(16).take(slice(None, None, 2))
    columns = {name: whole.column(name) for name in CORE}
    strided = {name: np.repeat(whole.column(name), 2)[::2] for name in CORE}
    one_time = np.broadcast_to(np.int64(7), (8,))
    eager = TickBatch(whole.symbols, whole.ts_event_ms, columns=columns, recv_ms=one_time.copy())
    odd = TickBatch(whole.symbols, whole.ts_event_ms.astype(">i8"), columns=strided, recv_ms=one_time)
    assert frame.encode(odd) == frame.encode(eager)
    assert frame.encode(every_other) == by_hand(every_other, (*CORE, *REST))


def test_most_of_the_parts_are_the_batch_s_own_arrays() -> None:
    batch = market()
    own = [np.asarray(part) for part in frame.parts(batch) if isinstance(part, memoryview)]
    assert all(any(np.shares_memory(part, batch.column(name)) for part in own) for name in (*CORE, "trades"))


def test_core_alone_leaves_out_the_rest() -> None:
    batch = market()
    back = frame.decode(frame.encode(batch, columns="core"))
    assert all(back.column(name).tobytes() == batch.column(name).tobytes() for name in CORE)
    assert not any(back.has(name) for name in REST)


def test_encoding_the_core_does_not_read_the_book() -> None:
    def load() -> dict[str, np.ndarray]:
        raise AssertionError("the book was read")

    batch = TickBatch(("600000.SH",), np.array([1]), columns={"last": np.array([1.0])}, load=load)
    assert frame.decode(frame.encode(batch, columns="core")).column("last").tolist() == [1.0]


def test_columns_are_views_of_the_frame_and_read_only() -> None:
    encoded = frame.encode(market())
    back = frame.decode(encoded)
    assert np.shares_memory(back.column("last"), np.frombuffer(encoded, np.uint8))
    assert back.column("bid_price_1").flags.aligned
    with pytest.raises(ValueError, match="read-only"):
        back.column("last")[0] = 1


def test_equal_symbol_lists_are_one_tuple_so_that_the_universe_knows_it() -> None:
    one, other = frame.decode(frame.encode(market())), frame.decode(frame.encode(market()))
    assert one.symbols is other.symbols
    universe = Universe()
    assert universe.rows(one.symbols) is universe.rows(other.symbols)


def test_many_different_symbol_lists_do_not_pile_up() -> None:
    for n in range(1, 60):
        frame.decode(frame.encode(market(n)))
    assert len(frame._tuples) <= frame._REMEMBERED


def test_every_truncation_is_refused() -> None:
    encoded = frame.encode(market())
    for size in range(len(encoded)):
        with pytest.raises(FeedError, match="truncated"):
            frame.decode(encoded[:size])
    with pytest.raises(FeedError, match="corrupt"):
        frame.decode(encoded + b"12345678")


def test_every_flipped_bit_is_refused() -> None:
    encoded = frame.encode(market())
    for place in range(len(encoded)):
        for bit in range(8):
            changed = bytearray(encoded)
            changed[place] ^= 1 << bit
            with pytest.raises(FeedError, match="tick frame"):
                frame.decode(bytes(changed))


def test_another_version_says_which_and_what_to_do() -> None:
    encoded = bytearray(frame.encode(market()))
    struct.pack_into("<H", encoded, 4, 9)
    with pytest.raises(FeedError, match="version 9, this program reads 1; run the same release"):
        frame.decode(bytes(encoded))


def test_other_bytes_are_no_frame() -> None:
    with pytest.raises(FeedError, match="not a tick frame"):
        frame.decode(b"PAR1" * 20)


@pytest.mark.parametrize("bad", ["", "600000.SH\n000001.SZ", "\ud800"])
def test_a_symbol_that_cannot_be_written_is_refused(bad: str) -> None:
    with pytest.raises(FeedError, match="cannot be written"):
        frame.encode(TickBatch((bad, "600000.SH"), np.zeros(2, np.int64), columns={}))


@settings(max_examples=200)
@given(batches())
def test_a_core_frame_and_its_rest_are_the_batch_bit_for_bit(batch: TickBatch) -> None:
    core = frame.encode(batch, columns="core")
    again = frame.decode(core, frame.encode_rest(batch))
    assert bits(again) == bits(batch)
    assert [again.has(name) for name in REST] == [batch.has(name) for name in REST]
    assert len(frame.encode_rest(batch)) <= frame.rest_size(len(batch))


def test_a_core_frame_leaves_the_lazy_columns_alone() -> None:
    batch = market()
    frame.encode(batch, columns="core")
    assert batch.rest_waits
    frame.encode_rest(batch)
    assert not batch.rest_waits


@pytest.mark.parametrize("rest", [b"", b"\x00" * 9, b"\xff" * 32])
def test_a_rest_of_another_size_is_refused(rest: bytes) -> None:
    with pytest.raises(FeedError, match="the rest of a tick frame is corrupt"):
        frame.decode(frame.encode(market(), columns="core"), rest)
