"""`XtTrader`: places orders by the vendor's xttrader (miniQMT, Windows), and hears what becomes of them.

The vendor calls back on threads of its own; what it tells is carried to the loop. Its calls may hang, so each has its
time; one that ran out leaves it unknown whether there is an order.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

from notifiers.ordering import Fill, TradeError, TurnedDown
from notifiers.orders import INTENT, Intent

ORDER_S: Final = 10.0
CONNECT_S: Final = 30.0
MOST_NEWS: Final = 10_000
STRATEGY: Final = "monitord"

log = structlog.get_logger(__name__)


class XtTrader:
    """One account of one terminal. `open` first; the loop's thread, but for the vendor's callbacks."""

    def __init__(self, *, path: str, account: str, session: int) -> None:
        """path: of the terminal's userdata_mini; session: a number no other program on it has."""
        self._path, self._account_id, self._session = path, account, session
        self._news: asyncio.Queue[Fill | TurnedDown] = asyncio.Queue(MOST_NEWS)  # full: the newest is logged and lost
        self._trader: Any = None
        self._account: Any = None
        self._sides: dict[str, int] = {}
        self._fix_price = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Connect and subscribe to the account; raises TradeError."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.to_thread(self._connect)
        except TimeoutError:
            raise TradeError(f"the terminal did not answer within {CONNECT_S:g} s; is it running?") from None
        except ImportError as error:
            raise TradeError(f"xtquant is not installed ({error}): pip install 'monitord[qmt]'") from None

    async def close(self) -> None:
        """Let go of the terminal."""
        trader, self._trader = self._trader, None
        if trader is not None:
            await asyncio.to_thread(trader.stop)

    async def order(self, intent: Intent) -> str:
        """Place a limit order; raises TradeError, or TimeoutError where it is unknown whether there is one."""
        async with asyncio.timeout(ORDER_S):
            number = await asyncio.to_thread(self._place, intent)
        if number < 0:
            raise TradeError("the terminal refuses the order")
        return str(number)

    async def next_news(self) -> Fill | TurnedDown:
        return await self._news.get()

    def _connect(self) -> None:
        from xtquant import xtconstant
        from xtquant.xttrader import XtQuantTrader, XtQuantTraderCallback
        from xtquant.xttype import StockAccount

        hear = self

        class Callback(XtQuantTraderCallback):  # type: ignore[misc]
            """What the vendor tells, on its threads; it swallows whatever is raised here."""

            def on_stock_trade(self, trade: Any) -> None:
                hear.on_trade(trade)

            def on_order_error(self, order_error: Any) -> None:
                hear.on_error(order_error)

            def on_disconnected(self) -> None:
                log.error("trader_disconnected", hint="start the bridge again")

        self._sides = {"buy": xtconstant.STOCK_BUY, "sell": xtconstant.STOCK_SELL}
        self._fix_price = xtconstant.FIX_PRICE
        trader = XtQuantTrader(self._path, self._session, Callback())
        trader.start()
        if trader.connect() != 0:
            raise TradeError("the terminal cannot be reached; bridge.trade.path is its userdata_mini folder")
        self._account = StockAccount(self._account_id)
        if trader.subscribe(self._account) != 0:
            raise TradeError("the terminal knows no such account; see bridge.trade.account")
        self._trader = trader

    def _place(self, intent: Intent) -> int:
        number: int = self._trader.order_stock(
            self._account, intent.symbol, self._sides[intent.side], intent.quantity, self._fix_price, intent.price,
            strategy_name=STRATEGY, order_remark=intent.id,
        )  # fmt: skip
        return number

    def on_trade(self, trade: Any) -> None:
        """Take a fill from a thread of the vendor's; one of an order that is not ours is passed over."""
        if trade.strategy_name != STRATEGY or self._loop is None:
            return
        side = "buy" if trade.order_type == self._sides["buy"] else "sell"
        fill = Fill(
            trade.order_remark, trade.stock_code, side, int(trade.traded_volume), float(trade.traded_price),
            str(trade.order_id), str(trade.traded_id),
        )  # fmt: skip
        self._loop.call_soon_threadsafe(self._keep, fill)

    def on_error(self, error: Any) -> None:
        """Take an order turned down after it was placed, from a thread of the vendor's."""
        log.error("order_failed", intent=error.order_remark, why=str(error.error_msg)[:200])
        if str(error.order_remark).startswith(INTENT) and self._loop is not None:  # it may lack the strategy's name
            news = TurnedDown(error.order_remark, str(error.order_id), str(error.error_msg)[:200])
            self._loop.call_soon_threadsafe(self._keep, news)

    def _keep(self, news: Fill | TurnedDown) -> None:
        try:
            self._news.put_nowait(news)
        except asyncio.QueueFull:
            log.error("order_news_lost", intent=news.intent_id, order=news.order)
