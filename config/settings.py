"""Every setting of the daemon, as frozen models with their defaults; loading.py reads what people have set."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config.adviser import AdviserSection
from config.origins import PREFIX
from config.receivers import (
    AppriseService,
    Bark,
    DingTalk,
    Email,
    Feishu,
    PushPlus,
    Receiver,
    RedisList,
    ServerChan,
    Tdx,
    Telegram,
    Webhook,
    WeCom,
)
from config.trading import OrdersSection, TradeSection
from config.values import (
    BoardName,
    Events,
    PlainAddress,
    Port,
    Seconds,
    Section,
    Speed,
    Symbols,
    Words,
    check_scheme,
    complaint,
    listed,
    tables,
)

SHIPPED = "shipped:"
"""Prefix of a rule file pattern that is looked up among the rule files installed with the program."""
SHIPPED_RULES = Path(__file__).resolve().parent / "rules"


class SimulatedSection(Section):
    """A market made from a seed; the same seed gives the same ticks."""

    seed: int = 1  # what the market is made from
    symbols: int = Field(default=5500, ge=1, le=7500)  # number of simulated stocks
    speed: Speed = 1.0  # multiple of real time, 0 = as fast as possible
    start: str = Field(default="09:30:00", pattern=r"^\d\d?:\d\d(:\d\d)?$")  # time of day of the first tick, Shanghai
    date: str = Field(default="2025-01-02", pattern=r"^\d{4}-\d\d-\d\d$")  # first trading day
    days: int = Field(default=0, ge=0)  # trading days until the feed ends, 0 = never
    interval_s: float = Field(default=3.0, ge=0.1, le=60)  # seconds of market time between two ticks of one stock


class ReplaySection(Section):
    """Recorded sessions, played again."""

    inputs: Words = ()  # recorded sessions, Parquet or CSV, played in order of time
    speed: Speed = 1.0  # multiple of real time, 0 = as fast as possible
    symbols: Symbols = ()  # play only these, () = all


class XtSection(Section):
    """xtquant (miniQMT, or the vendor's quote service with a token), Windows only."""

    symbols: Symbols = ()  # watch only these, () = whole markets
    markets: Annotated[tuple[Literal["SH", "SZ", "BJ"], ...], BeforeValidator(listed)] = ()  # () = all three
    # what of the markets is kept: main, chinext, star, bse, index, b_share, etf, bond; () = shares and indices
    boards: Annotated[tuple[BoardName, ...], BeforeValidator(listed)] = ()
    address: str = ""  # machine of the terminal, "" = this one
    port: Annotated[int, Field(ge=1, le=65535)] | None = None  # of the terminal, unset = it is looked for
    token: SecretStr | None = None  # no terminal: log in at the vendor's quote servers with this
    data_home: Path | None = None  # with a token: where the vendor keeps its files; unset = folder data where it runs
    servers: Words = ()  # with a token: quote servers as ip:port, () = the vendor chooses
    pulse: Symbols = ()  # if none of these ticks, the feed is silent; () = the Shanghai index and ten liquid stocks
    silent_s: Seconds = 10.0  # trading time without a pulse until the feed calls itself silent
    renew_s: Seconds = 60.0  # and until it subscribes anew, then connects anew
    reconnect_first_s: Seconds = 0.5  # first delay between attempts to connect, doubling
    reconnect_longest_s: Seconds = 5.0  # longest delay between attempts to connect
    timeout_s: Seconds = 30.0  # how long a call of the vendor may take
    inbox_batches: int = Field(default=256, ge=1, le=100_000)  # pushes that may wait; beyond, the oldest is dropped
    sectors: Words = ()  # the vendor's sectors that are taken, * allowed; () = 沪深A股, SW1*, GN*
    download_sectors: bool = True  # let the terminal fetch its lists of sectors first, once a day

    @model_validator(mode="after")
    def _one_way(self) -> XtSection:
        if self.symbols and self.markets:
            raise complaint("markets", "stands beside symbols", "a market's push holds its symbols already: name one")
        if self.address and self.port is None:
            raise complaint("address", "names a machine without a port", "set feed.xt.port as well, 58610 as a rule")
        if self.address and self.token is not None:
            raise complaint("token", "stands beside address", "a token needs no terminal: leave one of them out")
        if self.silent_s > self.renew_s:
            raise complaint("silent_s", "is more than renew_s", "silence is told first, and mended later")
        if self.reconnect_first_s > self.reconnect_longest_s:
            raise complaint("reconnect_first_s", "is more than reconnect_longest_s", "the first delay is the shortest")
        return self


def _stream(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        return text
    raise ValueError(f"{text!r} is no name: letters, digits, - _ . and at most 64 of them")


StreamName: TypeAlias = Annotated[str, AfterValidator(_stream)]


def _share(text: str) -> str:
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    if text == "" or (found is not None and int(found[1]) < int(found[2])):
        return text
    raise ValueError(f"{text!r} is no share: write 0/2 and 1/2 for the two halves of the rules")


class RedisSection(Section):
    """The tick stream that `monitord bridge` writes on another machine."""

    url: SecretStr | None = None  # redis://, rediss:// or unix:// address; unset = that of the broker
    stream: StreamName = "main"  # name of the stream, that of the bridge's bridge.stream

    @model_validator(mode="after")
    def _known_scheme(self) -> RedisSection:
        check_scheme(self.url)
        return self


class QuotesHttpSection(Section):
    """Public quote pages, for users without a terminal."""

    provider: Literal["tencent", "sina"] = "tencent"  # whose page is asked
    fallback_after_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # until the other one is asked, 0 = never
    symbols: Symbols = ()  # ask for these
    files: Words = ()  # and for those in files, a code a line; neither = every share there is
    interval_s: float = Field(default=3.0, ge=1, le=300)  # seconds in which all are asked once
    batch: int = Field(default=800, ge=1, le=800)  # codes in one request
    timeout_s: float = Field(default=5.0, gt=0, le=60)  # how long an answer may take
    tencent_url: PlainAddress = ""  # another address of that page, what comes before the codes; "" = the public one
    sina_url: PlainAddress = ""  # likewise


class FeedSection(Section):
    """Where the ticks come from."""

    # which of the sections below is used
    name: Literal["simulated", "replay", "xt", "redis", "quotes_http"] = "simulated"
    simulated: SimulatedSection = SimulatedSection()
    replay: ReplaySection = ReplaySection()
    xt: XtSection = XtSection()
    redis: RedisSection = RedisSection()
    quotes_http: QuotesHttpSection = QuotesHttpSection()

    @model_validator(mode="after")
    def _has_inputs(self) -> FeedSection:
        if self.name == "replay" and not self.replay.inputs:
            raise complaint(
                "replay.inputs", "is empty", "name the recorded session: --set feed.replay.inputs=day.parquet"
            )
        return self

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of the chosen feed's class; an empty list is None, which means no choice."""
        chosen: Section = getattr(self, self.name)
        values = {name: getattr(chosen, name) for name in type(chosen).model_fields}
        return {name: None if value == () else _revealed(value) for name, value in values.items()}


def _revealed(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


class RecordSection(Section):
    """Recordings of what comes in, for `replay`."""

    folder: Path | None = None  # where `monitord record`, and the daemon beside its work, write; unset = nowhere


class RulesSection(Section):
    """What is watched for."""

    # rule files, * allowed; shipped: looks among the installed examples. SIGHUP reads them again
    files: Words = (f"{SHIPPED}*.yaml",)
    # language of messages that a rule gives in several: zh or en
    language: Literal["zh", "en"] = "zh"

    def paths(self) -> list[Path]:
        """Return the files the patterns stand for now, in order of the patterns, each once.

        Raises FileNotFoundError for a pattern without any file.
        """
        return _paths("rules.files", self.files)

    def texts(self) -> dict[str, str]:
        """Read every rule file: path → text, in order. Raises OSError or UnicodeDecodeError."""
        return _texts(self.paths())


class PositionsSection(Section):
    """What is held, for rules over positions."""

    # position files, YAML or CSV, * allowed. SIGHUP reads them again
    files: Words = ()

    def texts(self) -> dict[str, str]:
        """Read every position file: path → text, in order. Raises OSError or UnicodeDecodeError."""
        return _texts(_paths("positions.files", self.files))


class InstrumentsSection(Section):
    """What is known of instruments besides what the feed tells."""

    # sector files, YAML or CSV, * allowed. SIGHUP reads them again
    sectors: Words = ()
    # ex-rights files, YAML or CSV, * allowed. SIGHUP reads them again
    exrights: Words = ()

    def texts(self) -> dict[str, str]:
        """Read every sector file: path → text, in order. Raises OSError or UnicodeDecodeError."""
        return _texts(_paths("instruments.sectors", self.sectors))

    def exright_texts(self) -> dict[str, str]:
        """Read every ex-rights file: path → text, in order. Raises OSError or UnicodeDecodeError."""
        return _texts(_paths("instruments.exrights", self.exrights))


def _paths(setting: str, patterns: tuple[str, ...]) -> list[Path]:
    """Return the files that patterns stand for now, each once; FileNotFoundError names a pattern without any."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        matches = _expand(pattern)
        if not matches:
            raise FileNotFoundError(f"{setting}: no file matches {pattern!r} (seen from {Path.cwd()})")
        found.update(dict.fromkeys(matches))
    return list(found)


def _texts(paths: list[Path]) -> dict[str, str]:
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise OSError(f"the name of the file {str(path)!r} is no UTF-8 text; rename it") from None
    return {str(path): path.read_text(encoding="utf-8") for path in paths}


def _expand(pattern: str) -> list[Path]:
    if pattern.startswith(SHIPPED):
        return sorted(SHIPPED_RULES.glob(pattern.removeprefix(SHIPPED)))
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    parts = path.parts[1:] if path.is_absolute() else path.parts
    return sorted(match for match in Path(path.anchor).glob(str(Path(*parts))) if match.is_file()) if parts else []


class EngineSection(Section):
    """The rule engine."""

    window: int = Field(default=250, ge=2, le=10_000)  # bars held per symbol and period
    checkpoint_s: Seconds = 60.0  # seconds between two checkpoints of the engine's state
    # part of the rules this engine takes where several share them: "0/2" and "1/2"; "" = all
    share: Annotated[str, AfterValidator(_share)] = ""


class HistorySection(Section):
    """What is kept of the past: sent events and their deliveries, and bars that rules warm up from."""

    keep_days: int = Field(default=90, ge=0, le=36_500)  # days until events leave the store, 0 = never
    # bars of the past, Parquet or CSV, * allowed; read at a start and where a rule lacks bars
    files: Words = ()
    # of our own bars, how many per symbol and period stay on the disk; 0 = none are written
    keep_bars: int = Field(default=1000, ge=0, le=100_000)

    def paths(self) -> list[Path]:
        """Return the files of bars there are now, each once; raises FileNotFoundError for a pattern without any."""
        return _paths("history.files", self.files)


class BrokerSection(Section):
    """Redis or Valkey; without a url the daemon runs its own under the state directory."""

    url: SecretStr | None = None  # redis://, rediss:// or unix:// address; unset = embedded broker
    port: Port = 0  # embedded: TCP port on 127.0.0.1, 0 = unix socket only
    socket: Path | None = None  # embedded: unix socket; unset = broker.sock in the state directory
    strict: bool = False  # embedded: fsync every write instead of every second
    password: SecretStr | None = None  # password of the broker, embedded or not
    # embedded: lets bridges in as the user bridge, which can write tick streams and nothing else
    bridge_password: SecretStr | None = None

    @model_validator(mode="after")
    def _known_scheme(self) -> BrokerSection:
        check_scheme(self.url)
        return self


class BridgeSection(Section):
    """`monitord bridge`: carries the feed of this machine to a daemon on another, over Redis."""

    url: SecretStr | None = None  # redis://, rediss:// or unix:// address; unset = broker.url
    stream: StreamName = "main"  # name of the stream; spare bridges of one market have the same
    name: Annotated[str, AfterValidator(lambda text: text and _stream(text))] = (
        ""  # of this bridge, "" = the host's name
    )
    keep_s: Annotated[float, Field(ge=10, le=86_400)] = (
        600.0  # how long the stream keeps an input: 260 MB for 10 minutes
    )
    spool_mb: int = Field(default=2048, ge=16)  # what is kept on the disk while Redis is away; the oldest goes first
    trade: TradeSection = TradeSection()

    @model_validator(mode="after")
    def _known_scheme(self) -> BridgeSection:
        check_scheme(self.url)
        return self


class Token(Section):
    """One bearer token and the channels it may read."""

    name: str = Field(min_length=1)
    token: SecretStr = Field(min_length=1)
    channels: Words = ("*",)


class GatewaySection(Section):
    """WebSocket, SSE and REST."""

    host: str = Field(default="127.0.0.1", min_length=1)  # address to listen on
    port: Port = 8710  # TCP port, 0 = any free one
    tokens: Annotated[tuple[Token, ...], BeforeValidator(tables)] = ()  # who may read what
    allow_loopback_without_token: bool = False  # let this machine in without a token
    allowed_origins: Words = ()  # web origins that may connect, besides the gateway's own page

    @model_validator(mode="after")
    def _guarded(self) -> GatewaySection:
        if not _is_loopback(self.host) and not self.tokens:
            raise complaint(
                "host",
                f"{self.host} can be reached from other machines, and there is no token",
                "add one under [[gateway.tokens]], or listen on 127.0.0.1",
            )
        names = [token.name for token in self.tokens]
        for name in names:
            if names.count(name) > 1:
                raise complaint("tokens", f"two tokens are named {name!r}", "give each its own name")
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Match(Section):
    """Which alerts: each condition that is given has to hold, and any of its entries will do."""

    rules: Words = ()  # globs, as symbols and severities
    symbols: Words = ()
    boards: Words = ()
    sectors: Words = ()
    severities: Words = ()
    events: Events = ()
    labels: dict[str, str] = Field(default_factory=dict)  # name → glob, all of them
    include: Words = ()  # the message has one of these texts in it
    exclude: Words = ()  # and none of these


class RouteSection(Match):
    """Where alerts that match go. A route inside has what it does not say itself from the one around it."""

    name: str = Field(default="", max_length=64)
    receivers: Words | None = None
    goes_on: bool = Field(default=False, alias="continue")  # try the later routes too
    group_by: Words | None = None  # one message for those with the same words; [] = each by itself
    group_wait_s: Annotated[float, Field(ge=0, le=3)] | None = None  # from a group's first alert to its message
    group_interval_s: Annotated[float, Field(ge=0, le=86_400)] | None = None  # between two messages of a group
    active: Words | None = None  # told only in these sessions and times of trading days, [] = always
    quiet: Words | None = None  # and not in these
    quiet_then: Literal["digest", "drop"] | None = None  # what becomes of those that come while it is quiet
    routes: tuple[RouteSection, ...] = ()


class InhibitSection(Section):
    """While an alert of source lasts, those of target with the same words are withheld."""

    name: str = Field(min_length=1, max_length=64)
    source: Match
    target: Match
    equal: Words = ("symbol",)
    hold_s: Annotated[float, Field(gt=0, le=86_400)] = 3_600.0  # at most so long after the source's fire


RULES_OF_TELLING = frozenset({"routes", "inhibits"})
"""What of the section is no list of receivers."""


class NotifySection(Section):
    """Who is told: a list of receivers for each kind, and who of them of what."""

    webhooks: Annotated[tuple[Webhook, ...], BeforeValidator(tables)] = ()  # receivers over HTTP
    dingtalk: Annotated[tuple[DingTalk, ...], BeforeValidator(tables)] = ()  # robots of DingTalk groups
    feishu: Annotated[tuple[Feishu, ...], BeforeValidator(tables)] = ()  # bots of Feishu or Lark groups
    wecom: Annotated[tuple[WeCom, ...], BeforeValidator(tables)] = ()  # robots of WeCom groups
    telegram: Annotated[tuple[Telegram, ...], BeforeValidator(tables)] = ()  # Telegram chats
    bark: Annotated[tuple[Bark, ...], BeforeValidator(tables)] = ()  # iPhones
    pushplus: Annotated[tuple[PushPlus, ...], BeforeValidator(tables)] = ()  # WeChat by PushPlus
    serverchan: Annotated[tuple[ServerChan, ...], BeforeValidator(tables)] = ()  # WeChat or app by ServerChan
    email: Annotated[tuple[Email, ...], BeforeValidator(tables)] = ()  # mail by SMTP
    redis: Annotated[tuple[RedisList, ...], BeforeValidator(tables)] = ()  # lists in a Redis
    tdx: Annotated[tuple[Tdx, ...], BeforeValidator(tables)] = ()  # files that TDX shows
    apprise: Annotated[tuple[AppriseService, ...], BeforeValidator(tables)] = ()  # services by Apprise
    routes: Annotated[tuple[RouteSection, ...], BeforeValidator(tables)] = ()  # who is told of what, first match
    inhibits: Annotated[tuple[InhibitSection, ...], BeforeValidator(tables)] = ()  # which alerts make others needless

    def lists(self) -> dict[str, tuple[Receiver, ...]]:
        """Return each kind's list of receivers by its key."""
        lists = {key: getattr(self, key) for key in type(self).model_fields}
        return {key: found for key, found in lists.items() if key not in RULES_OF_TELLING}

    def receivers(self) -> tuple[Receiver, ...]:
        """Return the receivers of all kinds, in order of kind."""
        return tuple(one for receivers in self.lists().values() for one in receivers)

    @property
    def receiver_names(self) -> tuple[str, ...]:
        """The names of all receivers, of whatever kind."""
        return tuple(one.name for one in self.receivers())

    @model_validator(mode="after")
    def _routes_lead_to_receivers(self) -> NotifySection:
        names = self.receiver_names
        for place, route in _numbered(self.routes):
            for receiver in route.receivers or ():
                if receiver not in names:
                    hint = f"there are {', '.join(names)}" if names else "there is none; add one, such as a webhook"
                    raise complaint("routes", f"{place} names a receiver {receiver!r} that there is not", hint)
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> NotifySection:
        first: dict[str, str] = {}
        for key, receivers in self.lists().items():
            for one in receivers:
                if one.name in first:
                    other = f"two {key} are" if first[one.name] == key else f"{key} and {first[one.name]} have one"
                    raise complaint(key, f"{other} named {one.name!r}", "give each its own name")
                first[one.name] = key
        return self


def _numbered(routes: tuple[RouteSection, ...], outer: str = "") -> Iterator[tuple[str, RouteSection]]:
    """Yield each route, those inside too, with a name for people: its own, else its number such as 2.1."""
    for number, route in enumerate(routes, 1):
        place = f"{outer}{number}"
        yield (f"route {route.name!r}" if route.name else f"route {place}"), route
        yield from _numbered(route.routes, f"{place}.")


class LogSection(Section):
    """The log on stdout."""

    format: Literal["auto", "json", "console"] = "auto"  # auto = console on a terminal, else json
    level: Literal["debug", "info", "warning", "error"] = "info"  # what is written from here up


def state_home() -> Path:
    """Return systemd's $STATE_DIRECTORY, else $XDG_STATE_HOME/monitord, else ~/.local/state/monitord.

    On Windows it is %LOCALAPPDATA%/monitord.
    """
    if os.environ.get("STATE_DIRECTORY"):
        return Path(os.environ["STATE_DIRECTORY"].split(":")[0])
    if os.name == "nt" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "monitord"
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "monitord"


class Settings(BaseSettings):
    """All settings. `Settings()` is the defaults alone; `load` (loading.py) reads what people have set."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", enable_decoding=False
    )

    state_dir: Path = Field(default_factory=state_home)  # journal, checkpoints, store and broker live here
    feed: FeedSection = FeedSection()
    record: RecordSection = RecordSection()
    rules: RulesSection = RulesSection()
    positions: PositionsSection = PositionsSection()
    instruments: InstrumentsSection = InstrumentsSection()
    engine: EngineSection = EngineSection()
    history: HistorySection = HistorySection()
    broker: BrokerSection = BrokerSection()
    bridge: BridgeSection = BridgeSection()
    gateway: GatewaySection = GatewaySection()
    notify: NotifySection = NotifySection()
    adviser: AdviserSection = AdviserSection()
    orders: OrdersSection = OrdersSection()
    log: LogSection = LogSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the caller alone: `load` lays the sources over each other and keeps each value's origin."""
        return (init_settings,)

    def secrets(self) -> frozenset[str]:
        """Return every secret text there is, for the log to blot out."""
        return frozenset(_secrets(self))


def _secrets(value: Any) -> list[str]:
    if isinstance(value, SecretStr):
        return [value.get_secret_value()]
    if isinstance(value, BaseModel):
        return [text for name in type(value).model_fields for text in _secrets(getattr(value, name))]
    if isinstance(value, tuple):
        return [text for member in value for text in _secrets(member)]
    return []
