"""A stand-in of the vendor's terminal: the native half of `xtquant`, so that its Python half runs unmodified anywhere.

The package's two binary modules exist for Windows only. `load_vendor` puts a module in the place of
`xtquant.datacenter` and imports the vendor's own `xtdata` over it; what that module's client connects to is the
`Terminal` of the test. It answers in the vendor's formats and calls back on threads of its own, with BSON as plain
`bytes`.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from feeds.sessions import unix_ms

TEN = unix_ms(20230201, 10 * 3_600_000)
Tick = dict[str, Any]


def tick(**changed: Any) -> Tick:
    """Return a tick as the vendor's documentation shows it, float noise included."""
    return {
        "time": TEN,
        "lastPrice": 11.39,
        "open": 11.39,
        "high": 11.4,
        "low": 11.31,
        "lastClose": 11.38,
        "amount": 862_127_800.0,
        "volume": 758_613,
        "pvolume": 75_861_284,
        "stockStatus": 3,
        "openInt": 13,
        "transactionNum": 37_062,
        "lastSettlementPrice": 11.38,
        "settlementPrice": 0.0,
        "pe": 0.0,
        "askPrice": [11.4, 11.41, 11.42, 11.43, 11.44],
        "bidPrice": [11.39, 11.38, 11.370000000000001, 11.36, 11.35],
        "askVol": [10929, 12401, 6671, 4555, 6708],
        "bidVol": [2429, 7127, 7146, 9111, 12189],
        "volRatio": 0.0,
        "speed1Min": 0.0,
        "speed5Min": 0.0,
    } | changed


class Terminal:
    """What the test's client talks to. Set the attributes to make it misbehave.

    running: it can be connected to. grants: answers of `subscribe_*` (default 1, 2, 3 …). calls: what was asked, in
    order.
    """

    current: Terminal | None = None

    def __init__(self) -> None:
        self.running = True
        self.grants: list[int] | None = None
        self.calls: list[tuple[Any, ...]] = []
        self.subscriptions: dict[int, Callable[[bytes], None]] = {}
        self.clients: list[Client] = []
        self.status_callback: Callable[[bytes], None] | None = None
        self.sectors: dict[str, list[str]] = {}
        self.details: dict[str, Mapping[str, Any]] = {}
        self.bars: dict[tuple[str, str], dict[str, Any]] = {}
        """(code, period) → columns of K-lines as the client gives them."""
        self.dividends: dict[str, dict[str, dict[str, float]]] = {}
        self.hangs = threading.Event()
        """While set, a download never comes to its end."""
        self._numbers = iter(range(1, 10_000))

    def push(self, payload: Any, *, number: int | None = None) -> None:
        """Call the subscribers back with this payload, on a thread of the terminal, and wait for them."""
        encoded = payload if isinstance(payload, bytes) else bson(payload)
        for callback in [self.subscriptions[number]] if number else list(self.subscriptions.values()):
            on_terminal_thread(lambda callback=callback: callback(encoded))

    def drop_connection(self) -> None:
        """Lose the connection, and say so as the vendor's client does."""
        for client in self.clients:
            client.connected = False
        self.say("disconnected")

    def say(self, status: str) -> None:
        if self.status_callback is not None:
            encoded = bson({"address": "127.0.0.1:58610", "status": status})
            callback = self.status_callback
            on_terminal_thread(lambda: callback(encoded))

    def grant(self) -> int:
        return self.grants.pop(0) if self.grants else next(self._numbers)


class Client:
    """The native client class, with the methods the vendor's Python calls and their argument order."""

    def __init__(self) -> None:
        assert Terminal.current is not None
        self.terminal = Terminal.current
        self.connected = False

    def init(self) -> None: ...

    def load_config(self, file: str, section: str) -> int:
        return 0

    def set_config_addr(self, address: str) -> None:
        self.terminal.calls.append(("address", address))

    def registerCommonControlCallback(self, name: str, callback: Callable[[bytes], None]) -> None:
        assert name == "watchxtquantstatus"
        self.terminal.status_callback = callback

    def connect(self) -> tuple[int, str]:
        if not self.terminal.running:
            return -1, "refused"
        self.connected = True
        self.terminal.clients.append(self)
        self.terminal.say("connected")
        return 0, ""

    def is_connected(self) -> bool:
        return self.connected

    def shutdown(self) -> None:
        self.connected = False
        self.terminal.calls.append(("shutdown",))

    def get_data_dir(self) -> str:
        return "datadir"

    def get_app_dir(self) -> str:
        return "app"

    def get_peer_addr(self) -> str:
        return "127.0.0.1:58610"

    def get_server_tag(self) -> bytes:
        return bson({"tag": "stand-in"})

    def commonControl(self, function: str, parameters: bytes) -> bytes:
        self.terminal.calls.append((function,))
        return bson({})

    def subscribe_quote(self, meta: bytes, region: bytes, parameters: bytes, callback: Callable[[bytes], None]) -> int:
        return self._subscribe("subscribe_quote", unbson(meta)["stockCode"], parameters, callback)

    def subscribe_whole_quote(self, codes: list[str], parameters: bytes, callback: Callable[[bytes], None]) -> int:
        return self._subscribe("subscribe_whole_quote", codes, parameters, callback)

    def _subscribe(self, name: str, codes: Any, parameters: bytes, callback: Callable[[bytes], None]) -> int:
        assert unbson(parameters) == {"needCallback": True}
        number = self.terminal.grant()
        self.terminal.calls.append((name, codes, number))
        if number > 0:
            self.terminal.subscriptions[number] = callback
        return number

    def unsubscribe_quote(self, number: int) -> None:
        self.terminal.calls.append(("unsubscribe_quote", number))
        self.terminal.subscriptions.pop(number, None)

    def get_full_tick(self, codes: list[str]) -> str:
        return json.dumps({})

    def get_stock_list_in_sector(self, sector: str, timetag: int) -> list[str]:
        return self.terminal.sectors.get(sector, [])

    def get_market_data3(self, fields: list[str], codes: list[str], period: str, *rest: Any) -> list[Any]:
        start, end, count, dividend_type, fill = rest[:5]
        self.terminal.calls.append(("get_market_data3", tuple(codes), period, start, end, count, dividend_type, fill))
        found = []
        for code in codes:
            columns = self.terminal.bars.get((code, period))
            if columns is not None:
                packed = [(f, columns[f].dtype.str, columns[f].tobytes()) for f in fields if f in columns]
                found.append((code, [str(number) for number in columns["time"]], packed))
        return found

    def get_divid_factors(self, code: str, start: str, end: str) -> dict[str, dict[str, float]]:
        return self.terminal.dividends.get(code, {})

    def supply_history_data2(self, codes: list[str], period: str, start: str, end: str, *rest: Any) -> bool:
        on_progress = rest[-1]
        self.terminal.calls.append(("supply_history_data2", tuple(codes), period, start))
        if not self.terminal.hangs.is_set():
            on_terminal_thread(lambda: on_progress({"finished": len(codes), "total": len(codes)}))
        return True

    def get_instrument_detail(self, code: str) -> bytes | None:
        detail = self.terminal.details.get(code)
        return None if detail is None else bson(detail)


def load_vendor() -> ModuleType:
    """Import the vendor's own `xtquant.xtdata` over the stand-in, once per process; nothing goes over the network."""
    if "xtquant.xtdata" not in sys.modules:
        native = ModuleType("xtquant.datacenter")
        native.rpc_init = lambda folder: 0  # type: ignore[attr-defined]
        native.register_create_nparray = lambda function: None  # type: ignore[attr-defined]
        native.get_local_server_port = lambda: 0  # type: ignore[attr-defined]
        native.IPythonApiClient = Client  # type: ignore[attr-defined]
        with _without("requests"):  # the package asks an index for updates when it is imported
            package = importlib.import_module("xtquant")
            package.datacenter = native
            sys.modules["xtquant.datacenter"] = native
            importlib.import_module("xtquant.xtdata")
    return sys.modules["xtquant.xtdata"]


@contextmanager
def running_terminal() -> Iterator[Terminal]:
    """Yield a fresh terminal that the vendor's package will connect to; leave that package disconnected."""
    xtdata = load_vendor()
    Terminal.current = terminal = Terminal()
    try:
        yield terminal
    finally:
        xtdata.disconnect()
        xtdata.watch_xtquant_status(None)
        Terminal.current = None


@contextmanager
def _without(name: str) -> Iterator[None]:
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before


def on_terminal_thread(call: Callable[[], object]) -> None:
    """Run a call on a fresh thread and wait for its end."""
    thread = threading.Thread(target=call, name="terminal")
    thread.start()
    thread.join()


def bson(value: Mapping[str, Any]) -> bytes:
    """Encode with the vendor's own BSON, as plain bytes: it decodes nothing of another type."""
    return bytes(importlib.import_module("xtquant.xtbson").BSON.encode(value))


def unbson(encoded: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = importlib.import_module("xtquant.xtbson").BSON.decode(encoded)
    return decoded
