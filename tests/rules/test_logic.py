"""Gates over packed bits against Kleene logic written out one symbol at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.language.tree import Kind
from rules.logic import Circuit
from rules.node import ALL, Node, Selection, Truth


class Leaf(Node):
    """A truth given by hand: 1, 0, or None for unknown, one per symbol."""

    def __init__(self, key: str, values: list[int | None]) -> None:
        super().__init__(key, period="tick", kind=Kind.TRUTH)
        self.values = values

    def peek(self, at: Selection) -> None:
        chosen = np.array([-1 if value is None else value for value in self.values])[at]
        self.value = Truth(chosen == 1, chosen == 0)


class Gate(Node):
    def __init__(self, kind: str, *args: Node) -> None:
        super().__init__(f"{kind}({','.join(arg.key for arg in args)})", period="tick", kind=Kind.TRUTH, args=args)
        self._kind = kind

    @property
    def gate(self) -> str:
        return self._kind


def kleene(node: Node, symbol: int) -> int | None:
    """Evaluate one symbol by the book: unknown unless the known operands decide."""
    if isinstance(node, Leaf):
        return node.values[symbol]
    operands = [kleene(arg, symbol) for arg in node.args]
    if node.gate == "NOT":
        return None if operands[0] is None else 1 - operands[0]
    deciding = 0 if node.gate == "AND" else 1
    if deciding in operands:
        return deciding
    return None if None in operands else 1 - deciding


N_SYMBOLS = 19  # not a multiple of 8
leaf_values = st.lists(st.sampled_from([1, 0, None]), min_size=N_SYMBOLS, max_size=N_SYMBOLS)


@st.composite
def forests(draw: st.DrawFn) -> list[Node]:
    nodes: list[Node] = [Leaf(f"L{i}", draw(leaf_values)) for i in range(draw(st.integers(1, 5)))]
    for _ in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["AND", "OR", "NOT"]))
        size = 1 if kind == "NOT" else draw(st.integers(2, 4))
        nodes.append(Gate(kind, *(draw(st.sampled_from(nodes)) for _ in range(size))))
    return draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=6))


@given(forests(), st.data())
def test_every_condition_is_its_kleene_value_and_unknown_outside_the_selection(
    conditions: list[Node], data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.integers(0, N_SYMBOLS - 1), unique=True, min_size=1))
    circuit = Circuit(conditions)
    for at in (ALL, np.array(sorted(chosen)), ALL):
        for leaf in circuit.leaves:
            leaf.peek(at)
        circuit.run(at, n_symbols=N_SYMBOLS)
        selected = set(range(N_SYMBOLS)) if isinstance(at, slice) else set(at.tolist())
        for row, node in zip(circuit.rows, conditions, strict=True):
            true = np.unpackbits(circuit.t[row])[:N_SYMBOLS]
            false = np.unpackbits(circuit.f[row])[:N_SYMBOLS]
            for symbol in range(N_SYMBOLS):
                expected = kleene(node, symbol) if symbol in selected else None
                assert (true[symbol], false[symbol]) == (expected == 1, expected == 0)


def test_a_gate_shared_by_many_conditions_is_wired_once() -> None:
    a, b = Leaf("a", [1]), Leaf("b", [0])
    shared = Gate("AND", a, b)
    circuit = Circuit([Gate("NOT", shared), Gate("OR", shared, a), shared])
    assert len(circuit.leaves) == 2
    assert len(circuit.t) == 5  # two leaves, the shared AND, a NOT and an OR


@pytest.mark.parametrize("n_symbols", [1, 8, 9])
def test_the_universe_may_grow_between_runs(n_symbols: int) -> None:
    leaf = Leaf("a", [1] * n_symbols)
    circuit = Circuit([leaf])
    for size in (1, n_symbols):
        leaf.values = [1] * size
        leaf.peek(ALL)
        circuit.run(ALL, n_symbols=size)
        assert int(np.unpackbits(circuit.t[0]).sum()) == size
