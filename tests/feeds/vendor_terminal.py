"""A stand-in of the vendor's terminal: the native half of `xtquant`, so that its Python half runs unmodified anywhere.

The package's two binary modules exist for Windows only. `load_vendor` puts a module in the place of
`xtquant.datacenter` and imports the vendor's own `xtdata` over it; what that module's client connects to is the
`Terminal` of the test. It answers in the vendor's formats and calls back on threads of its own, with BSON as plain
`bytes`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

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
    order. hanging: names of calls that wait until `release` is set, as the vendor's do.
    """

    current: Terminal | None = None

    def __init__(self) -> None:
        self.running = True
        self.grants: list[int] | None = None
        self.calls: list[tuple[Any, ...]] = []
        self.subscriptions: dict[int, Subscription] = {}
        self.clients: list[Client] = []
        self.status_callback: Callable[[bytes], None] | None = None
        self.sectors: dict[str, list[str]] = {}
        self.details: dict[str, Mapping[str, Any]] = {}
        self.bars: dict[tuple[str, str], dict[str, Any]] = {}
        """(code, period) → columns of K-lines as the client gives them."""
        self.dividends: dict[str, dict[str, dict[str, float]]] = {}
        self.hangs = threading.Event()
        """While set, a download never comes to its end."""
        self.trading_days: list[int] = []
        self.holidays: list[int] = []
        self.hanging: set[str] = set()
        self.release = threading.Event()
        self.hung = threading.Semaphore(0)
        self.token_error: dict[str, Any] | None = None
        self.settings: dict[str, Any] = {}
        self._numbers = iter(range(1, 100_000))

    def push(self, payload: Any, *, number: int | None = None) -> None:
        """Call the subscribers back with this payload, on a thread of the terminal, and wait for them."""
        encoded = payload if isinstance(payload, bytes) else bson(payload)
        chosen = [self.subscriptions[number]] if number else list(self.subscriptions.values())
        for subscription in chosen:
            on_terminal_thread(lambda callback=subscription.callback: callback(encoded))

    def live(self) -> list[Any]:
        """Return what is subscribed on clients that are connected, as often as it is."""
        return [one.codes for one in self.subscriptions.values() if one.client.connected]

    def drop_connection(self) -> None:
        """Lose the connection, and say so as the vendor's client does."""
        for client in self.clients:
            client.lose()
        self.say("disconnected")

    def restart(self) -> None:
        """End without a word and be there again: the clients find out when they ask."""
        for client in self.clients:
            client.lose()

    def say(self, status: str) -> None:
        if self.status_callback is not None:
            encoded = bson({"address": "127.0.0.1:58610", "status": status})
            callback = self.status_callback
            on_terminal_thread(lambda: callback(encoded))

    def grant(self) -> int:
        return self.grants.pop(0) if self.grants else next(self._numbers)

    def take_call(self, name: str, *arguments: Any) -> None:
        """Note a call, and hang in it if that is asked for."""
        self.calls.append((name, *arguments))
        if name in self.hanging:
            self.hung.release()
            assert self.release.wait(30)


class Subscription(NamedTuple):
    codes: Any
    callback: Callable[[bytes], None]
    client: Client


class Client:
    """The native client class, with the methods the vendor's Python calls and their argument order."""

    def __init__(self) -> None:
        assert Terminal.current is not None
        self.terminal = Terminal.current
        self.connected = False

    def lose(self) -> None:
        self.connected = False
        for number, one in list(self.terminal.subscriptions.items()):
            if one.client is self:
                del self.terminal.subscriptions[number]

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
        self.terminal.take_call("connect")
        self.connected = True
        self.terminal.clients.append(self)
        self.terminal.say("connected")
        return 0, ""

    def is_connected(self) -> bool:
        if "is_connected" in self.terminal.hanging:
            self.terminal.take_call("is_connected")
        return self.connected

    def shutdown(self) -> None:
        self.lose()
        self.terminal.take_call("shutdown")

    def get_data_dir(self) -> str:
        return "datadir"

    def get_app_dir(self) -> str:
        return "app"

    def get_peer_addr(self) -> str:
        return "127.0.0.1:58610"

    def get_server_tag(self) -> bytes:
        return bson({"tag": "stand-in"})

    def commonControl(self, function: str, parameters: bytes) -> bytes:
        self.terminal.take_call(function)
        return bson({})

    def subscribe_quote(self, meta: bytes, region: bytes, parameters: bytes, callback: Callable[[bytes], None]) -> int:
        assert unbson(meta)["period"] == "tick"
        return self._subscribe("subscribe_quote", unbson(meta)["stockCode"], parameters, callback)

    def subscribe_whole_quote(self, codes: list[str], parameters: bytes, callback: Callable[[bytes], None]) -> int:
        return self._subscribe("subscribe_whole_quote", codes, parameters, callback)

    def _subscribe(self, name: str, codes: Any, parameters: bytes, callback: Callable[[bytes], None]) -> int:
        assert unbson(parameters) == {"needCallback": True}
        number = self.terminal.grant()
        self.terminal.take_call(name, codes, number)
        if number > 0 and self.connected:
            self.terminal.subscriptions[number] = Subscription(codes, callback, self)
        return number

    def unsubscribe_quote(self, number: int) -> None:
        self.terminal.take_call("unsubscribe_quote", number)
        self.terminal.subscriptions.pop(number, None)

    def get_full_tick(self, codes: list[str]) -> str:
        return json.dumps({})

    def get_sector_list(self) -> list[str]:
        self.terminal.take_call("get_sector_list")
        return list(self.terminal.sectors)

    def get_stock_list_in_sector(self, sector: str, timetag: int) -> list[str]:
        self.terminal.take_call("get_stock_list_in_sector", sector)
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

    def get_instrument_detail(self, code: str) -> bytes | None:
        self.terminal.take_call("get_instrument_detail", code)
        detail = self.terminal.details.get(code)
        return None if detail is None else bson(detail)

    def get_trading_dates_by_market(self, market: str, start: str, end: str, count: int) -> list[int]:
        self.terminal.take_call("get_trading_dates_by_market", market)
        return [unix_ms(day) for day in self.terminal.trading_days]

    def get_holidays(self) -> list[int]:
        return self.terminal.holidays

    def supply_history_data2(
        self, codes: list[str], period: Any, start: str, end: str, parameters: bytes, progress: Callable[..., Any]
    ) -> bool:
        self.terminal.take_call("supply_history_data2", codes)
        if self.terminal.hangs.is_set():
            return True
        progress({"finished": 1, "total": 1, "message": ""})
        return True


def native_module() -> ModuleType:
    """Return the stand-in of `xtquant.datacenter`: the client class, and the quote service that a token starts."""

    def setting(name: str) -> Callable[[Any], None]:
        def keep(value: Any) -> None:
            assert Terminal.current is not None
            Terminal.current.settings[name] = value

        return keep

    def asked(name: str) -> Terminal:
        assert Terminal.current is not None
        Terminal.current.take_call(name)
        return Terminal.current

    def listen(address: str, first: int, last: int) -> tuple[str, int]:
        terminal = asked("listen")
        terminal.settings["listen"] = (address, first, last)
        return address, terminal.settings.get("free_port", first)

    native = ModuleType("xtquant.datacenter")
    parts: dict[str, Any] = {
        "rpc_init": lambda folder: 0,
        "register_create_nparray": lambda function: None,
        "get_local_server_port": lambda: 0,
        "IPythonApiClient": Client,
        "log_init": lambda: None,
        "start_init_quote": lambda: asked("start_init_quote") and None,
        "get_status": lambda: {"init_done": bool(asked("get_status"))},
        "fetch_auth_markets": lambda: (
            {"done": 0} if asked("fetch_auth_markets").token_error else {"done": 1, "markets": ["SH", "SZ", "BJ"]}
        ),
        "fetch_server_list_status": lambda: bson({"0": asked("fetch_server_list_status").token_error}),
        "fetch_init_result": lambda keys: {key: bson({"done": 1, "errorcode": 0, "resultcode": 0}) for key in keys},
        "listen": listen,
        "shutdown": lambda: asked("shutdown_service") and None,
    }
    names = ("set_config_dir", "set_data_home_dir", "set_token", "set_allow_optmize_address")
    parts |= {name: setting(name) for name in (*names, "set_wholequote_market_list", "set_watch_market_list")}
    for name, part in parts.items():
        setattr(native, name, part)
    return native


def load_vendor() -> ModuleType:
    """Import the vendor's own `xtquant.xtdata` over the stand-in, once per process; nothing goes over the network."""
    if "xtquant.xtdata" not in sys.modules:
        native = native_module()
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
        terminal.hanging.clear()
        terminal.release.set()
        _see_the_lanes_end()
        xtdata.disconnect()
        xtdata.watch_xtquant_status(None)
        Terminal.current = None


def _see_the_lanes_end() -> None:
    """Wait for calls that were left hanging: one that comes back later connects the package to a terminal gone by."""
    for thread in threading.enumerate():
        if thread.name.startswith("xt-"):
            thread.join(10)
            assert not thread.is_alive(), f"{thread.name} hangs, and its terminal has let go of everything"


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


async def until(true: Callable[[], object]) -> None:
    """Wait for other threads to make something true."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  # the vendor's threads set no event of ours
            await asyncio.sleep(0.001)
