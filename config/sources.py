"""Settings of the feeds: where ticks come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from config.values import (
    BoardName,
    PlainAddress,
    Seconds,
    Section,
    Speed,
    StreamName,
    Symbols,
    Words,
    check_scheme,
    complaint,
    listed,
)


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
