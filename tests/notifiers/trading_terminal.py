"""Stands for the vendor's terminal that trades; no part of it runs here."""

from __future__ import annotations

import threading
from types import ModuleType, SimpleNamespace
from typing import Any


class Terminal:
    """Stands for the vendor's module: one account, orders numbered from 1, fills told on a thread of its own."""

    def __init__(self) -> None:
        self.reachable, self.number, self.orders = 0, 1, list[tuple[Any, ...]]()
        self.callback: Any = None

    def modules(self) -> dict[str, ModuleType]:
        terminal = self

        class XtQuantTrader:
            def __init__(self, path: str, session: int, callback: Any = None) -> None:
                terminal.callback = callback

            def start(self) -> None: ...

            def stop(self) -> None: ...

            def connect(self) -> int:
                return terminal.reachable

            def subscribe(self, account: Any) -> int:
                return 0 if account.number == "123" else -1

            def order_stock(
                self, account: Any, stock_code: str, order_type: int, order_volume: int, price_type: int, price: float,
                strategy_name: str = "", order_remark: str = "",
            ) -> int:  # fmt: skip
                terminal.orders.append(
                    (stock_code, order_type, order_volume, price_type, price, strategy_name, order_remark)
                )
                return terminal.number

        made = {name: ModuleType(f"xtquant.{name}") for name in ("xtconstant", "xttrader", "xttype")}
        made["xtconstant"].__dict__.update(STOCK_BUY=23, STOCK_SELL=24, FIX_PRICE=11)
        made["xttrader"].__dict__.update(XtQuantTrader=XtQuantTrader, XtQuantTraderCallback=object)
        made["xttype"].__dict__["StockAccount"] = lambda number: SimpleNamespace(number=number)
        package = ModuleType("xtquant")
        package.__dict__.update(made)
        return {"xtquant": package, **{f"xtquant.{name}": module for name, module in made.items()}}

    def fill(self, remark: str, *, strategy: str = "monitord", order_type: int = 24) -> None:
        trade = SimpleNamespace(
            stock_code="600519.SH", order_type=order_type, traded_volume=100, traded_price=18.4, order_id=7,
            traded_id="0012", strategy_name=strategy, order_remark=remark,
        )  # fmt: skip
        self._tell(self.callback.on_stock_trade, trade)

    def refuse(self, remark: str) -> None:
        error = SimpleNamespace(order_id=8, error_id=1, error_msg="停牌", strategy_name=None, order_remark=remark)
        self._tell(self.callback.on_order_error, error)

    def _tell(self, hear: Any, told: Any) -> None:
        thread = threading.Thread(target=hear, args=(told,))
        thread.start()
        thread.join()
