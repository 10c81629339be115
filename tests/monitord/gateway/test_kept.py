"""What is kept: the ring against a plain list, and the part of the stream that leads up to the top."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitord.gateway.kept import Ring, _contiguous_tail
from monitord.gateway.protocol import Published
from notifiers import alertstream
from tests.monitord.gateway.stand import EPOCH


def alert(off: int, epoch: str = EPOCH) -> Published:
    return Published(epoch, off, b"{}", ("alerts",))


@given(size=st.integers(1, 20), base=st.integers(0, 50), count=st.integers(0, 60), data=st.data())
def test_the_ring_holds_what_a_list_of_the_newest_would(size: int, base: int, count: int, data: st.DataObject) -> None:
    ring, kept = Ring(size), list[int]()
    ring.reset(base)
    for off in range(base + 1, base + count + 1):
        ring.append(alert(off))
        kept = [*kept, off][-size:]
    assert ring.top == base + count
    assert ring.first == (kept[0] if kept else base + 1)
    after = data.draw(st.integers(ring.first - 1, ring.top + 3))
    most = data.draw(st.integers(0, 30))
    assert [found.off for found in ring.after(after, most)] == [off for off in kept if off > after][:most]


def test_the_tail_that_leads_to_the_top_is_kept() -> None:
    place = alertstream.Position(EPOCH, 9, recovered=True)
    kept = [alert(1), alert(2), alert(5, "old1"), alert(6, "old1"), alert(7), alert(8), alert(9)]
    assert [found.off for found in _contiguous_tail(kept, place)] == [7, 8, 9]
    assert _contiguous_tail(kept[:-1], place) == []
    assert _contiguous_tail([], place) == []
