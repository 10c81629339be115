"""`QuoteService`: the vendor's own quote service inside this process, for those who have a token and no terminal.

`xtquant.xtdatacenter` logs in at the vendor's servers with a token and then serves `xtdata` on a local port, as a
terminal does. Everything is set before `init`, which must not run twice in a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from feeds.errors import FeedError
from feeds.xtlink import import_vendor

HOST: Final = "127.0.0.1"
"""It serves this process, so nobody else may reach it."""
PORTS: Final = (58620, 58650)
"""Where it listens if no port is set: the first that is free, beside those of terminals (58610)."""
MARKETS: Final = ["SH", "SZ", "BJ"]

log = structlog.get_logger(__name__)


class QuoteService:
    """Blocking calls, for a lane's thread."""

    def __init__(
        self, token: str, *, data_home: Path | None = None, servers: Sequence[str] = (), port: int | None = None
    ) -> None:
        """data_home: where its files are kept, None = a folder `data` where it runs. servers: `ip:port`, () = any."""
        self._token = token
        self._data_home = data_home
        self._servers = list(servers)
        self._ports: int | tuple[int, int] = PORTS if port is None else port
        self._center: Any = None
        self._address: tuple[str, int] | None = None

    def start(self) -> tuple[str, int]:
        """Log in and listen; return (address, port). Raises the vendor's ConnectionError or OSError, or FeedError."""
        if self._address is not None:
            return self._address
        center = import_vendor("xtdatacenter")
        center.set_token(self._token)
        if self._data_home is not None:
            self._data_home.mkdir(parents=True, exist_ok=True)
            center.set_data_home_dir(str(self._data_home))
        if self._servers:
            center.set_allow_optmize_address(self._servers)
        center.set_init_markets(MARKETS)  # all others cost minutes and memory
        center.set_wholequote_market_list(MARKETS)
        center.init(start_local_service=False)
        address, port = center.listen(ip=HOST, port=self._ports)
        if not port:
            raise FeedError(f"xt: the quote service found no free port among {self._ports}; set feed.xt.port")
        self._center, self._address = center, (str(address), int(port))
        log.info("xt_quote_service", address=address, port=port)
        return self._address

    def stop(self) -> None:
        """End it; never raises."""
        center, self._center, self._address = self._center, None, None
        try:
            if center is not None:
                center.shutdown()
        except Exception as error:  # the vendor raises bare Exception; we are leaving anyway
            log.warning("xt_quote_service_not_ended", error=self.redacted(str(error)))

    def redacted(self, text: str) -> str:
        """Return a text of the vendor's without the token."""
        return text.replace(self._token, "…") if self._token else text
