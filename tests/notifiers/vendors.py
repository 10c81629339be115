"""Stand-ins of DingTalk, Feishu and WeCom: what they check, their codes, their rates with the ten-minute block.

Written after the vendors' documentation and DELIVERY.md, not after our code; signatures by HMAC written out.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

HOUR_MS = 3_600_000


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC written out after RFC 2104."""
    key = hashlib.sha256(key).digest() if len(key) > 64 else key
    key = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + message).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()


@dataclass
class Window:
    """A rate: so many in any `window_ms`."""

    limit: int
    window_ms: int
    times: deque[int] = field(default_factory=deque)

    def take(self, now_ms: int) -> bool:
        while self.times and self.times[0] <= now_ms - self.window_ms:
            self.times.popleft()
        self.times.append(now_ms)
        return len(self.times) <= self.limit


@dataclass
class Bot:
    """A vendor's robot. `forced` answers come first, whatever is asked."""

    now_ms: Callable[[], int]
    token: str = "pl4nted-token"
    secret: str = ""
    keyword: str = ""
    forced: deque[tuple[int, Any]] = field(default_factory=deque)
    texts: list[str] = field(default_factory=list)
    """Texts of the messages that were taken."""
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, path: str, query: str, body: bytes) -> tuple[int, Any]:
        """Return HTTP status and JSON."""
        return self.forced.popleft() if self.forced else self.check(path, query, body)

    def check(self, path: str, query: str, body: bytes) -> tuple[int, Any]:
        raise NotImplementedError

    def taken(self, message: dict[str, Any], text: str) -> None:
        self.bodies.append(message)
        self.texts.append(text)


class DingTalkBot(Bot):
    """oapi.dingtalk.com/robot/send."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.rate = Window(20, 60_000)
        self.blocked_until_ms = 0
        self.while_blocked = 0

    def check(self, path: str, query: str, body: bytes) -> tuple[int, Any]:
        # As a form is read: an unescaped + is a space, which is how signatures break.
        asked = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True))
        message = json.loads(body)
        if path != "/robot/send" or asked.get("access_token") != self.token:
            return 200, {"errcode": 300005, "errmsg": "token is not exist"}
        if self.now_ms() < self.blocked_until_ms:
            self.while_blocked += 1
            return 200, {"errcode": 130101, "errmsg": "send too fast, exceed 20 times per minute"}
        if not self.rate.take(self.now_ms()):
            self.blocked_until_ms = self.now_ms() + 600_000
            return 200, {"errcode": 130101, "errmsg": "send too fast, exceed 20 times per minute"}
        if self.secret and not self._signed(asked):
            return 200, {"errcode": 310000, "errmsg": "sign not match, more: [https://ding-doc.dingtalk.com/]"}
        if len(body) > 20_000:
            return 200, {"errcode": 460101, "errmsg": "message too long, exceed 20000 bytes"}
        kind = message.get("msgtype")
        shape = {"markdown": {"title", "text"}, "text": {"content"}}.get(kind)
        if shape is None or set(message.get(kind, {})) != shape or not all(message[kind].values()):
            return 200, {"errcode": 400105, "errmsg": "unsupported msgtype"}
        if self.keyword and self.keyword not in " ".join(message[kind].values()):
            return 200, {"errcode": 310000, "errmsg": "keywords not in content"}
        self.taken(message, message[kind].get("text") or message[kind].get("content"))
        return 200, {"errcode": 0, "errmsg": "ok"}

    def _signed(self, asked: dict[str, str]) -> bool:
        stamp = asked.get("timestamp", "")
        if not stamp.isdigit() or abs(int(stamp) - self.now_ms()) > HOUR_MS:
            return False
        expected = hmac_sha256(self.secret.encode(), f"{stamp}\n{self.secret}".encode())
        return asked.get("sign") == base64.b64encode(expected).decode()


class FeishuBot(Bot):
    """open.feishu.cn/open-apis/bot/v2/hook/<token>."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.minute, self.second = Window(100, 60_000), Window(5, 1000)

    def check(self, path: str, query: str, body: bytes) -> tuple[int, Any]:
        message = json.loads(body)
        if path != f"/open-apis/bot/v2/hook/{self.token}":
            return 200, {"code": 19001, "data": {}, "msg": "param invalid: incoming webhook access token invalid"}
        if not (self.minute.take(self.now_ms()) and self.second.take(self.now_ms())):
            return 200, {"code": 11232, "data": {}, "msg": "frequency limited psm[lark.oapi.app_platform_runtime]"}
        if self.secret and not self._signed(message):
            return 200, {"code": 19021, "data": {}, "msg": "sign match fail or timestamp is not within one hour"}
        text = self._text(message)
        if text is None or len(body) > 20_000:
            return 400, {"code": 9499, "data": {}, "msg": "Bad Request"}
        if self.keyword and self.keyword not in json.dumps(message, ensure_ascii=False):
            return 200, {"code": 19024, "data": {}, "msg": "Key Words Not Found"}
        self.taken(message, text)
        return 200, {"StatusCode": 0, "StatusMessage": "success", "code": 0, "data": {}, "msg": "success"}

    @staticmethod
    def _text(message: dict[str, Any]) -> str | None:
        if message.get("msg_type") == "text":
            return message.get("content", {}).get("text") or None
        if message.get("msg_type") == "interactive" and message["card"]["header"]["title"]["content"]:
            return "\n".join(block["content"] for block in message["card"]["elements"]) or None
        return None

    def _signed(self, message: dict[str, Any]) -> bool:
        stamp = str(message.get("timestamp", ""))
        if not stamp.isdigit() or abs(int(stamp) * 1000 - self.now_ms()) > HOUR_MS:
            return False
        return message.get("sign") == base64.b64encode(hmac_sha256(f"{stamp}\n{self.secret}".encode(), b"")).decode()


class WeComBot(Bot):
    """qyapi.weixin.qq.com/cgi-bin/webhook/send."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.rate = Window(20, 60_000)

    def check(self, path: str, query: str, body: bytes) -> tuple[int, Any]:
        message = json.loads(body)
        if path != "/cgi-bin/webhook/send" or dict(parse_qsl(query)).get("key") != self.token:
            return 200, {"errcode": 93000, "errmsg": "invalid webhook url, hint: [1]"}
        if not self.rate.take(self.now_ms()):
            return 200, {"errcode": 45009, "errmsg": "api freq out of limit"}
        kind = message.get("msgtype")
        limit = {"markdown": 4096, "text": 2048}.get(kind)
        content = message.get(kind, {}).get("content", "")
        if limit is None or not content or len(content.encode()) > limit:
            return 200, {
                "errcode": 40058,
                "errmsg": "markdown.content exceed max length 4096",
            }
        self.taken(message, content)
        return 200, {"errcode": 0, "errmsg": "ok"}


BOTS: dict[str, type[Bot]] = {"dingtalk": DingTalkBot, "feishu": FeishuBot, "wecom": WeComBot}
