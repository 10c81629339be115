"""The benchmarks run, are complete, and compare like with like: peers and we agree on values and events. No timing."""

from __future__ import annotations

import socket
import threading
from importlib import import_module
from pathlib import Path

import numpy as np
import orjson
import pytest

from monitord.gateway.protocol import text_frame
from rules.node import ALL
from tests.bench import w1_kernel
from tests.bench.__main__ import main
from tests.bench.exactness import false_crosses, relative_errors
from tests.bench.kernel import Kernel
from tests.bench.load import PONG, Ear
from tests.bench.peers import VALUES, TaLib, Talipp, mytt_recompute, pandas_recompute
from tests.bench.report import Line, Report, to_json
from tests.bench.w1 import CONDITIONS, make_market, rule_text, warm_engine


@pytest.mark.parametrize("name", ["w1_kernel", "frame_to_events", "hop", "memory", "exactness", "publish", "fan_out"])
def test_a_benchmark_tells_a_figure_for_every_line(name: str) -> None:
    report = import_module(f"tests.bench.{name}").run(quick=True)
    assert report.lines
    assert all(np.isfinite(line.value) for line in report.lines)
    assert all(timing.n > 0 and timing.median_ms > 0 for timing in report.timings.values())


def test_values_are_those_of_ta_lib() -> None:
    assert max(relative_errors(20).values()) <= 1e-12


def test_ties_are_no_crosses_and_no_cross_is_missed() -> None:
    ours, missed, as_floats, ties = false_crosses(symbols=100, bars=60)
    assert (ours, missed) == (0, 0)
    assert as_floats > 0  # the market of ties is one where it matters
    assert ties > 500


def test_every_peer_finds_the_same_events() -> None:
    market = make_market(30, bars=600, seed=2)
    batch = market.next()
    columns = [batch.column(name) for name in ("last", "high", "low")]
    prices = list(zip(*(column.tolist() for column in columns), strict=True))
    kernel = Kernel(market.history)
    kernel.put(*columns)
    bits = np.unpackbits(kernel.sample(), axis=1)[:, :30]
    ours = {(int(row), int(condition)) for condition, row in np.argwhere(bits)}
    assert ours
    assert set(TaLib(market.history).snapshot(prices)) == ours
    assert set(Talipp(market.history).snapshot(prices)) == ours
    for make in (pandas_recompute, mytt_recompute):
        assert set(make(market.history).snapshot(prices)) == ours


def test_the_rule_file_says_what_the_kernel_evaluates() -> None:
    market = make_market(200, bars=130, seed=4)
    engine, kernel = warm_engine(market, rule_text()), Kernel(market.history)
    kernel.put(market.close, market.high, market.low)
    kernel.sample()
    for _ in range(30):
        batch = market.next()
        kernel.put(*(batch.column(name) for name in ("last", "high", "low")))
        bits = np.unpackbits(kernel.sample(), axis=1)[:, :200]
        expected = {(f"w1_{condition}", batch.symbols[row]) for condition, row in np.argwhere(bits)}
        assert {(alert.rule, alert.symbol) for alert in engine.step(batch)} == expected


def test_w1_has_its_ten_conditions_and_all_its_indicators() -> None:
    kernel = Kernel(make_market(10, bars=70).history)
    kernel.graph.plan(kernel.indicators.values()).peek(ALL)
    assert set(kernel.indicators) == set(VALUES)
    assert len(CONDITIONS) == 10


def test_every_peer_takes_part_in_the_race() -> None:
    names = [contender.name for contender in w1_kernel.peers(make_market(100, bars=70), quick=True)]
    assert names == ["TA-Lib stream", "akquant (Rust)", "talipp", "pandas recompute", "MyTT"]


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (Line("a", 59.9, least=60), False),
        (Line("a", 60.0, least=60), True),
        (Line("a", 1e-13, "", most=1e-12), True),
        (Line("a", 2.6, most=2.5), False),
        (Line("a", np.float64(2), least=3), False),
        (Line("a", 1.0), None),
    ],
)
def test_a_figure_is_held_to_what_was_asked(line: Line, verdict: bool | None) -> None:
    assert line.verdict is verdict
    record = orjson.loads(to_json([Report("b", [line])]))
    assert record["benchmarks"][0]["lines"][0]["met"] is verdict


def test_the_command_writes_json_and_fails_on_a_missed_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.bench.memory.run", lambda quick: Report("memory", [Line("bytes", 2000, most=1024)]))
    file = tmp_path / "bench.json"
    assert main(["--only", "memory", "--quick", "--json", str(file)]) == 1
    assert "missed: memory: bytes" in capsys.readouterr().out
    assert orjson.loads(file.read_bytes())["benchmarks"][0]["name"] == "memory"


def test_an_ear_times_an_alert_when_its_frame_is_complete_and_answers_pings() -> None:
    alert, heartbeat = b'{"ch":"alerts","off":%d,"data":{"stamps":{"recv_ms":%d}}}', b'{"op":"hb","top":{"alerts":1}}'
    text = (alert % (1, 5)) + b"\n" + (alert % (2, 5)).replace(b"}}}", b'}},"pad":"%b"}' % (b"x" * 300))
    frames = text_frame(heartbeat) + text_frame(text) + text_frame(alert % (3, 6))
    with socket.create_server(("127.0.0.1", 0)) as server:
        ears: list[Ear] = []
        connecting = threading.Thread(target=lambda: ears.append(Ear(*server.getsockname())))
        connecting.start()
        client, _ = server.accept()
        client.recv(4096)
        client.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        connecting.join(10)
        (ear,) = ears
        for piece in (frames[:5], frames[5:90], frames[90:-9]):
            client.sendall(piece)
            ear.hear()
        complete_ns = ear._times[-1][0]
        ear.tidy()
        client.sendall(frames[-9:] + b"\x89\x00")
        ear.hear()
        ear.tidy()
        assert client.recv(16) == PONG
        client.close()
        with pytest.raises(ConnectionError, match="closed"):
            ear.hear()
        ear.socket.close()
    first, second, third = ear.alerts
    assert first == second == (5, complete_ns)
    assert third[0] == 6
    assert third[1] > complete_ns
