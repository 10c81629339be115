"""What the vendor's errors mean, in plain words: message → what is wrong and what to do.

The vendor raises bare `Exception`s in Chinese, and some of its failures are a number or nothing at all. Everything here
is pure text, so that `monitord doctor`, the feed's own errors and docs/feeds.md say the same.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Message(NamedTuple):
    """One of the vendor's messages: `text` is the part of it that never changes, `means` plain words."""

    text: str
    means: str


NOT_HERE: Final = (
    "It runs on Windows (x64) beside the vendor's terminal: install monitord[qmt] there. Without Windows "
    "use the bridge (`monitord bridge` on the terminal's machine, feed.name = 'redis' here) or public "
    "HTTP quotes (feed.name = 'quotes_http'); the feeds simulated and replay need nothing"
)
"""What there is where the vendor's package cannot be used."""
REFUSED: Final = "subscription refused"
"""Our own word for a subscription that was answered with -1, 0 or nothing; `explain` knows it."""

MESSAGES: Final = (
    Message(
        "无法连接xtquant服务",
        "no terminal answers at this address. Start miniQMT (XtMiniQmt, or QMT with 独立交易 ticked), log "
        "in, and wait for the quote light to turn green; if it listens on another port, set feed.xt.port. "
        "A terminal started as administrator is found only by a program that is one too",
    ),
    Message(
        "远程地址不支持仅输入IP",
        "feed.xt.address names another machine, and that needs feed.xt.port as well",
    ),
    Message(
        "行情服务连接断开",
        "the terminal closed the connection while it was asked; it was restarted, logged out, or switched "
        "its quote server",
    ),
    Message(
        "未获取到市场权限",
        "the token gives no market: it is mistyped or has expired, or its account has no quote service. "
        "Look it up in the vendor's user centre and set feed.xt.token",
    ),
    Message(
        "未找到支持该市场的连接",
        "none of the quote servers serves this market: take it out of feed.xt.markets, or name other feed.xt.servers",
    ),
    Message(
        "行情连接初始化异常",
        "the quote servers cannot be reached or refused the login; the text in brackets says which and "
        "why. Check the network and the firewall, feed.xt.servers and feed.xt.token",
    ),
    Message(
        "监听端口失败",
        "the port of the built-in quote service is taken, most likely by another monitord; set another feed.xt.port",
    ),
    Message(
        "尚未初始化",
        "the quote service was asked before it had started; start monitord again",
    ),
    Message(
        "rpc init failed",
        "the package's own configuration folder cannot be read: reinstall xtquant into a folder without "
        "Chinese letters",
    ),
    Message(
        "load config failed",
        "the package's xtdata.ini is missing or damaged: reinstall xtquant",
    ),
    Message(
        "exceptions must derive from BaseException",
        "the package failed to say what is wrong (it raises a text); most likely its xtdata.ini is "
        "missing: reinstall xtquant",
    ),
    Message(
        "invalid port",
        "feed.xt.port is no port; leave it out and the terminal is looked for",
    ),
    Message(
        "下载数据失败",
        "the terminal could not fetch the data: no network, no right to this data, or its server is busy "
        "before the open",
    ),
    Message(
        "交易日列表为空",
        "the terminal has no trading dates yet; download them in its 数据管理, or wait until it has",
    ),
    Message(
        "节假日数据为空",
        "the terminal has no holidays yet: only trading dates up to today are taken from it",
    ),
    Message(
        "超出现有节假日数据",
        "the terminal's holidays end before that date: next year's are not published yet",
    ),
    Message(
        "暂不支持除SH,SZ以外市场的交易日历",
        "the vendor has trading calendars of Shanghai and Shenzhen only",
    ),
    Message(
        "function not realize",
        "the terminal is older than the package and does not know this call: update the terminal, or "
        "install an older xtquant",
    ),
    Message(
        REFUSED,
        "the terminal answered a subscription with a number below 1: the account has no right to these "
        "quotes, too many symbols are subscribed one by one (300 for most accounts), or it has not "
        "finished logging in",
    ),
    Message(
        "DLL load failed",
        "Windows cannot load the package's binaries: they are for 64-bit Python 3.6 to 3.13, and need the "
        "Microsoft Visual C++ runtime of 2015 or newer",
    ),
    Message(
        "cannot import name 'datacenter'",
        f"the package has no binaries for this platform or Python. {NOT_HERE}",
    ),
    Message(
        "No module named 'xtquant",
        f"the package xtquant is not installed here. {NOT_HERE}",
    ),
)
"""Told apart from top to bottom: the first whose text is part of an error is meant."""


def explain(error: str) -> str:
    """Return what an error of the vendor's means and what to do; "" for one that is not known."""
    return next((message.means for message in MESSAGES if message.text in error), "")
