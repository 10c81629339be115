"""Every setting of the daemon, as frozen models with their defaults; loading.py reads what people have set."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config.adviser import AdviserSection
from config.notify import NotifySection
from config.origins import PREFIX
from config.sources import FeedSection
from config.trading import OrdersSection, TradeSection
from config.values import (
    Port,
    Seconds,
    Section,
    StreamName,
    Words,
    check_scheme,
    complaint,
    cpu_list,
    stream_name,
    tables,
)

SHIPPED = "shipped:"
"""Prefix of a rule file pattern that is looked up among the rule files installed with the program."""
SHIPPED_RULES = Path(__file__).resolve().parent / "rules"


def _share(text: str) -> str:
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    if text == "" or (found is not None and int(found[1]) < int(found[2])):
        return text
    raise ValueError(f"{text!r} is no share: write 0/2 and 1/2 for the two halves of the rules")


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
    # Linux: processors the daemon keeps to, as in 0 or 0,2-3; the embedded broker gets the others; "" = all
    cpus: Annotated[str, AfterValidator(cpu_list)] = ""


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
    name: Annotated[str, AfterValidator(lambda text: text and stream_name(text))] = (
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
