"""`monitord explain`: why a rule fires for a symbol, and why not, from a running daemon or over a recorded session."""

from __future__ import annotations

import argparse
import re
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from monitord.commands import GOOD, CommandError
from monitord.commands.exrights import add_exrights, exright_control, load_exrights
from monitord.commands.rulefiles import load_rules
from monitord.commands.settings import add_settings, load_settings

if TYPE_CHECKING:
    from config.settings import Settings
    from feeds.inputs import Input
    from rules.engine import Engine

HELP = "why a rule fires for a symbol or not: each part of its condition now, arming, timers, the last events"
LAST: Final = 5
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d):([0-5]\d)")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rule", metavar="RULE", help="id of the rule")
    parser.add_argument("symbol", metavar="SYMBOL", help="such as 600519.SH")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    offline = parser.add_argument_group("over a recorded session, without a daemon")
    offline.add_argument("--rules", type=Path, nargs="+", metavar="FILE", help="rule files (YAML)")
    offline.add_argument("--input", type=Path, nargs="+", metavar="SESSION", help="recorded sessions, Parquet or CSV")
    offline.add_argument("--at", metavar="HH:MM:SS", help="stop there on the last day recorded (default: at its end)")
    add_exrights(offline)  # type: ignore[arg-type]  # a group takes arguments as a parser does
    daemon = parser.add_argument_group("from a running daemon")
    daemon.add_argument("--url", help="its address (default: that of the settings)")
    add_settings(daemon)  # type: ignore[arg-type]  # a group takes arguments as a parser does


def run(args: argparse.Namespace) -> int:
    """Explain and print; raises CommandError for what cannot be answered."""
    if (args.rules is None) != (args.input is None):
        raise CommandError("--rules and --input go together: the rules, and the session to run them over")
    if args.at is not None and args.input is None:
        raise CommandError("--at needs a session: --rules FILE --input SESSION")
    record = _from_daemon(args) if args.input is None else _over_session(args)
    _print(record, as_json=args.json)
    return GOOD


def _print(record: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        import orjson

        print(orjson.dumps(record, option=orjson.OPT_INDENT_2).decode())
    else:
        from rules.explain import Explanation, render

        try:
            explanation = Explanation.of(record)
        except (KeyError, TypeError):
            raise CommandError("the answer is not one of this version of monitord; see it with --json") from None
        print(render(explanation))


# ── over a session ────────────────────────────────────────────────────────────────────────────────────────────────


def _over_session(args: argparse.Namespace) -> dict[str, Any]:
    from feeds.errors import FeedError
    from feeds.inputs import Control, ControlKind
    from feeds.recording import inputs
    from rules.engine import Engine
    from rules.errors import RuleError
    from rules.explain import explain

    ruleset = load_rules(args.rules)
    engine = Engine()
    days = load_exrights(args.exrights)
    if days or len(args.input) > 1:
        engine.step(exright_control(days))
    engine.step(Control(ControlKind.RULES, ruleset.source))
    last: deque[dict[str, Any]] = deque(maxlen=LAST)
    try:
        explain(engine, args.rule, args.symbol)  # an unknown rule is told before the session is read
        end_ms = None if args.at is None else _end_ms(args)
        for given in inputs(args.input):
            if end_ms is not None and _ts_ms(given.value) > end_ms:
                break
            for alert in engine.step(given.value, offset=given.offset):
                if alert.rule == args.rule and alert.symbol == args.symbol:
                    last.appendleft(alert.record())
        if end_ms is not None:
            _reach(engine, end_ms)
        return explain(engine, args.rule, args.symbol, last=tuple(last)).record()
    except (FeedError, RuleError) as error:
        raise CommandError(str(error)) from None


def _reach(engine: Engine, end_ms: int) -> None:
    """Let the clock come to the time asked for, although no tick said so."""
    from feeds.inputs import Heartbeat

    if end_ms > engine.market.clock_ms:
        engine.step(Heartbeat(end_ms))


def _end_ms(args: argparse.Namespace) -> int:
    """Return the end of the second asked for, on the last day of the recordings; raises CommandError, FeedError."""
    from feeds.recording import inputs
    from feeds.sessions import midnight_ms

    match = _CLOCK.fullmatch(args.at)
    if match is None:
        raise CommandError(f"--at {args.at}: write a time of day such as 10:02:03")
    hour, minute, second = map(int, match.groups())
    last_ms = max((_ts_ms(given.value) for given in inputs(args.input)), default=0)
    return midnight_ms(last_ms) + ((hour * 60 + minute) * 60 + second) * 1000 + 999


def _ts_ms(value: Input) -> int:
    from feeds.history import Bars
    from feeds.inputs import Control
    from feeds.tick import TickBatch

    if isinstance(value, TickBatch):
        return int(value.ts_event_ms.min())
    return 0 if isinstance(value, Control | Bars) else value.ts_ms


# ── from a daemon ─────────────────────────────────────────────────────────────────────────────────────────────────


def _from_daemon(args: argparse.Namespace) -> dict[str, Any]:
    import json
    from urllib.error import HTTPError, URLError
    from urllib.parse import quote
    from urllib.request import ProxyHandler, Request, build_opener

    settings = load_settings(args).settings
    base = (args.url or _address(settings)).rstrip("/")
    if not re.match(r"https?://[^/\s]+", base):
        raise CommandError(f"--url {args.url}: write an address such as http://127.0.0.1:8710")
    request = Request(f"{base}/v1/rules/{quote(args.rule, safe='')}/explain/{quote(args.symbol, safe='')}")
    token = _token(settings)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        # no proxy: the gateway is asked directly, whatever the environment says
        with build_opener(ProxyHandler({})).open(request, timeout=10) as reply:
            record: dict[str, Any] = json.load(reply)
            return record
    except HTTPError as error:
        raise CommandError(f"the daemon at {base} answers {error.code}: {_reason(error.read())}") from None
    except (URLError, TimeoutError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise CommandError(
            f"no daemon answers at {base} ({reason}); start it, name it with --url, or explain a recorded session: "
            "--rules FILE --input SESSION"
        ) from None
    except ValueError:
        raise CommandError(f"what answers at {base} is no monitord") from None


def _reason(body: bytes) -> str:
    import json

    try:
        return str(json.loads(body)["error"]["msg"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace") or "nothing more"


def _address(settings: Settings) -> str:
    """Return where a daemon with these settings listens, seen from this machine."""
    host = settings.gateway.host
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.gateway.port}"


def _token(settings: Settings) -> str | None:
    """Return the first token of the settings that may read rules."""
    from fnmatch import fnmatchcase

    for token in settings.gateway.tokens:
        if any(fnmatchcase("rules", pattern) for pattern in token.channels):
            return token.token.get_secret_value()
    return None
