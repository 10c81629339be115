"""What a route is: `Route`, the sources its handler may ask, and `ApiError`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from monitord.gateway.auth import Grant
from monitord.gateway.quotes import QuoteSource
from monitord.paging import Page
from monitord.store import HistoryFilter, StoredAlert

if TYPE_CHECKING:
    from feeds.history import BarTable
    from feeds.instruments import Instrument
    from monitord.deliveries import DeliveryFilter, StoredDelivery
    from monitord.desk import ReceiverKind, ReceiverReport, Told
    from monitord.positions import Listed
    from monitord.ruledesk import RuleDesk
    from monitord.taskdesk import TaskDesk
    from monitord.tryout import Wish
    from monitord.warmup import Progress
    from notifiers.notifier import Outcome
    from notifiers.recorded import Attempt
    from notifiers.silences import Silence
    from rules.explain import Explanation
    from rules.needs import Readiness
    from rules.positions import Position
    from rules.rule import RuleSet


class History(Protocol):
    """The stored events (`monitord.store.Store`)."""

    async def history(self, wanted: HistoryFilter, *, page: int = 1, page_size: int = 100) -> Page[StoredAlert]:
        """Return a page of the events that pass, newest first."""

    async def alert(self, alert_id: str) -> StoredAlert | None:
        """Return the event of this id, None if there is none."""

    def copied(self) -> AbstractAsyncContextManager[Path]:
        """Yield a file that holds the whole store as it is now; it is gone afterwards."""


class RulesControl(Protocol):
    """The rules in force."""

    def rules(self) -> RuleSet:
        """Return the rules in force."""

    async def reload(self) -> None:
        """Read the rule files again and swap; raises RuleFileError with its findings and keeps the old ones if bad."""

    async def explain(self, rule: str, symbol: str) -> Explanation:
        """Return why the rule fires for the symbol or not; raises RuleError if there is no such rule."""

    async def readiness(self) -> Mapping[str, Readiness]:
        """Return rule id → how many of the symbols it watches have their first value; rules over groups are not in."""

    @property
    def warming(self) -> Progress | None:
        """How far the search for bars of the past is; None while nothing is searched."""

    async def positions(self) -> Sequence[Listed]:
        """Return the positions of files and API as they are now; raises RuleError or OSError for a bad file."""

    async def hold(self, held: Sequence[Position]) -> None:
        """Keep these as the API's positions; raises RuleError, and changes nothing, for what cannot be held."""

    async def indicators(self, symbol: str) -> Mapping[str, Mapping[str, float | None]]:
        """Return rule id → named output → value now, of the rules that cover the symbol; None = unknown."""


class HealthSource(Protocol):
    """What the daemon knows about itself; both methods are quick."""

    def reasons(self) -> list[str]:
        """Return why the daemon is not ready, in words for people; empty when it is."""

    def report(self) -> Mapping[str, Any]:
        """Return the health report, JSON-able."""


class DeskSource(Protocol):
    """Receivers, deliveries and silences (`monitord.desk.Desk`)."""

    async def receivers(self) -> list[ReceiverReport]:
        """Return how each receiver is."""

    async def receiver(self, name: str) -> ReceiverReport | None:
        """Return how one is, None if there is none of this name."""

    async def enable(self, name: str, *, replay: bool = False) -> int:
        """Switch it on, its failures forgotten; with `replay` return how many dead letters are delivered again."""

    async def disable(self, name: str, *, reason: str) -> None:
        """Switch it off."""

    async def take_stock(self) -> None:
        """Count what the metrics show of the store."""

    async def deliveries(self, wanted: DeliveryFilter, *, page: int, page_size: int) -> Page[StoredDelivery]:
        """Return a page of the deliveries that pass, newest first."""

    async def delivery(self, delivery_id: int) -> tuple[StoredDelivery, list[Attempt], list[str]] | None:
        """Return a delivery, its attempts and, of a bundle, its alerts' ids; None if there is none."""

    async def replay(self, wanted: DeliveryFilter) -> int:
        """Deliver the dead letters that pass again; return how many alerts they are."""

    async def notifications(self, wanted: DeliveryFilter, *, page: int, page_size: int) -> Page[Told]:
        """Return a page of the deliveries that pass, newest first, each with its attempts and its event."""

    def channels(self) -> list[ReceiverKind]:
        """Return what is configured, in the settings' order; secrets are not in it."""

    async def test(self, name: str) -> Outcome:
        """Send a test message to a receiver; what it says is free of secrets."""

    async def silences(self) -> list[Silence]:
        """Return the newest silences, newest first."""

    async def silence(self, silence: Silence) -> Silence:
        """Keep a silence, and let it take effect; raises SilenceError."""

    async def expire(self, silence_id: int) -> Silence | None:
        """End a silence now and return it, None if there is none of this id."""


class StudySource(Protocol):
    """Names, bars and formulas to look at (`monitord.study.Study`)."""

    async def instruments(self, words: str, *, limit: int) -> Sequence[Instrument]:
        """Return the symbols that are watched whose code or name has these words, the best matches first."""

    async def bars(self, symbol: str, period: str, *, count: int) -> BarTable:
        """Return the newest bars that the engine holds of a symbol, the forming one too; quick."""

    async def try_out(self, wish: Wish) -> bytes:
        """Return as JSON what a formula gives on recent bars or ticks; raises TryOutError, or RuleFileError."""


@dataclass(frozen=True, slots=True)
class Made:
    """What is made by API: tasks and rules."""

    tasks: TaskDesk
    rules: RuleDesk


@dataclass(frozen=True, slots=True)
class Sources:
    """What handlers may ask."""

    history: History
    rules: RulesControl
    quotes: QuoteSource
    health: HealthSource
    metrics: Callable[[], bytes]
    """Renders the Prometheus text."""
    ticket: Callable[[Grant], str]
    """Makes a single-use ticket."""
    ticket_s: float
    desk: DeskSource
    study: StudySource | None = None
    """None: nobody answers (a 503)."""
    made: Made | None = None
    """None: a gateway by which nothing can be made."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a handler is asked. grant: what the token allows; query: the parsed query, None without a query model."""

    request: web.Request
    grant: Grant
    query: Any
    sources: Sources

    @property
    def made(self) -> Made:
        """What is made by API; raises ApiError 503 where nothing can be."""
        if self.sources.made is None:
            raise ApiError(503, "unavailable", "this gateway has no tasks and no rules by API")
        return self.sources.made

    def require(self, *resources: str) -> None:
        """Raise ApiError 403 unless the token may read one of these."""
        if not any(self.grant.allows(resource) for resource in resources):
            raise ApiError(403, "permission_denied", f"this token may not read {resources[0]}")


Model = TypeVar("Model", bound=BaseModel)


async def body_of(ask: Ask, model: type[Model]) -> Model:
    """Read the request's JSON; raises ApiError 400 that names the field."""
    try:
        return model.model_validate_json(await ask.request.read() or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or None
        msg = first["msg"].removeprefix("Value error, ")
        raise ApiError(400, "bad_request", f"{field or 'the body'}: {msg}", field=field) from None


Reply: TypeAlias = BaseModel | web.StreamResponse
Handler: TypeAlias = Callable[[Ask], Awaitable[Reply]]


class ApiError(Exception):
    """A request that is refused; becomes {"error":{"code","msg","field"}} with this HTTP status."""

    def __init__(self, status: int, code: str, msg: str, *, field: str | None = None, **details: Any) -> None:
        super().__init__(msg)
        self.status = status
        self.error = {"code": code, "msg": msg, "field": field, **details}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path.

    handler: a model it returns is sent as JSON.
    needs: the resource the token's channel patterns must allow; None: any token will do, and the handler checks what
    only it can know. errors: statuses it may answer with besides those that every route has.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    needs: str | None = None
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    """What the request holds as JSON; the handler reads it."""
    reply: type[BaseModel] | None = None
    errors: tuple[int, ...] = ()
    media: str = "application/json"
    anyone: bool = False
    """Open to all without a token."""
    ends_with_client: bool = False
    """It changes nothing and takes long: cancelled when the client has left."""


def json_response(body: Any, *, status: int = 200) -> web.Response:
    """Encode with NaN as null."""
    text = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
    return web.Response(
        body=text, status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )
