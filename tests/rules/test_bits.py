"""Gates and arming over rows of bits: compiled code does what numpy does, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import logic
from rules.language.tree import Kind
from rules.lifecycle import EdgeBits
from rules.logic import Circuit
from rules.node import ALL, Bits, Node, Selection, Truth

pytestmark = pytest.mark.skipif(logic.COMPILED is None, reason="there was no compiler at installation")


class Leaf(Node):
    """A truth that is drawn anew at each pass, as masks or as bits."""

    def __init__(self, key: str, rng: np.random.Generator, n: int) -> None:
        super().__init__(key, period="tick", kind=Kind.TRUTH)
        self._rng, self._n = rng, n

    def peek(self, at: Selection) -> None:
        drawn = self._rng.integers(-1, 2, self._n if isinstance(at, slice) else at.size)
        truth = Truth(drawn == 1, drawn == 0)
        self.value = truth if self._rng.random() < 0.5 else Bits.packed(truth)


class Gate(Node):
    def __init__(self, kind: str, *args: Node) -> None:
        super().__init__(f"{kind}({','.join(arg.key for arg in args)})", period="tick", kind=Kind.TRUTH, args=args)
        self._kind = kind

    @property
    def gate(self) -> str:
        return self._kind


def lived(seed: int, n: int, slots: int, *, samples: int) -> list[Any]:
    """Fires and state after each sample of some random conditions."""
    rng = np.random.default_rng(seed)
    nodes: list[Node] = [Leaf(f"L{i}", rng, n) for i in range(4)]
    for _ in range(8):
        kind = str(rng.choice(["AND", "OR", "NOT"]))
        chosen = rng.choice(len(nodes), 1 if kind == "NOT" else int(rng.integers(2, 4)))
        nodes.append(Gate(kind, *(nodes[i] for i in chosen)))
    rearms = slots // 2
    circuit = Circuit([nodes[i] for i in rng.integers(0, len(nodes), slots + rearms)])
    rows = len(circuit.t)
    own = [int(row) for row in circuit.rows[slots:]]
    rearm_rows = np.array([*own, *(rows + int(row) for row in circuit.rows[rearms:slots])], np.int64)
    edges = EdgeBits([(f"r{i}", "", "") for i in range(slots)])
    edges.grow(n)
    on_start = np.where(rng.random((slots, 1)) < 0.5, 255, 0).astype(np.uint8)
    seen: list[Any] = []
    for _ in range(samples):
        at: Selection = ALL if rng.random() < 0.5 else rng.permutation(n)[: int(rng.integers(1, n + 1))]
        for leaf in circuit.leaves:
            leaf.peek(at)
        circuit.run(at, n_symbols=n)
        enabled = np.packbits(rng.random((slots, n)) < 0.8, axis=1)
        fires = edges.take(circuit, rearm_rows=rearm_rows, enabled=enabled, fire_on_start=on_start)
        seen.append((fires, edges.armed.tobytes(), edges.started.tobytes(), circuit.both.tobytes()))
    return seen


@given(seed=st.integers(0, 1 << 30), n=st.sampled_from([1, 7, 8, 9, 63, 64, 65, 200]), slots=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_both_ways_fire_alike_and_leave_the_same_bits(seed: int, n: int, slots: int) -> None:
    compiled = lived(seed, n, slots, samples=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logic, "COMPILED", None)
        assert compiled == lived(seed, n, slots, samples=5)


BOTH = np.zeros((4, 3), np.uint8)
ONE = np.zeros((1, 3), np.uint8)
FIRST = np.array([[0]])


@pytest.mark.parametrize(
    "gates", [[[0, 0, 1, 2]], [[0, 0, 2, 1]], [[3, 0, 0, 1]], [[0, 0, 0, 0]], [[2, -1, -1, 1]]], ids=str
)
def test_a_gate_of_other_rows_is_refused(gates: list[list[int]]) -> None:
    assert logic.COMPILED is not None
    with pytest.raises(ValueError, match="gate 0 is none of these rows"):
        logic.COMPILED.gates(np.array(gates, np.int32), BOTH.copy())


@pytest.mark.parametrize(
    ("true", "false", "at"),
    [([ONE[0]], [], [[0]]), ([ONE[0, :1]] * 3, [ONE[0, :1]] * 3, [[0]]), ([ONE[0]], [ONE[0]], [[0]]),
     ([ONE[0, :1]], [ONE[0, :1]], [[24]]), ([ONE[0, :1]], [ONE[0, :1]], [[-1]])],
)  # fmt: skip
def test_bits_of_other_symbols_or_rows_are_refused(true: list[Any], false: list[Any], at: list[list[int]]) -> None:
    assert logic.COMPILED is not None
    logic.COMPILED.scatter([ONE[0, :1]] * 2, [ONE[0, :1]] * 2, np.array([[23]]), BOTH.copy())
    with pytest.raises(ValueError, match=r"are not in both|is not 1 bytes"):
        logic.COMPILED.scatter(true, false, np.array(at), BOTH.copy())


@pytest.mark.parametrize(
    ("place", "wrong"),
    [(1, np.array([[2]])), (2, np.array([[4]])), (3, np.zeros((1, 2), np.uint8)), (4, np.zeros((2, 1), np.uint8)),
     (5, np.zeros((1, 3), np.int16)), (6, np.zeros((2, 3), np.uint8)), (1, np.array([0], np.int64))],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(place: int, wrong: np.ndarray) -> None:
    assert logic.COMPILED is not None
    arrays = [BOTH, FIRST, FIRST, ONE, np.zeros((1, 1), np.uint8), ONE.copy(), ONE.copy()]
    assert logic.COMPILED.edges(*arrays) == []
    arrays[place] = wrong
    with pytest.raises(ValueError, match=r"is needed|none of these rows"):
        logic.COMPILED.edges(*arrays)
