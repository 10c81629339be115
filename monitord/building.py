"""What the daemon's parts are made of: settings and the files they name, turned into what the rooms take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from config.settings import Settings
from feeds.barcache import BarCache
from feeds.exrights import HOLIDAYS_SINCE, closed_weekdays, encode_exrights
from feeds.feed import Feed, history_of
from feeds.sessions import Calendar
from monitord.broker import Broker, EmbeddedBroker, ExternalBroker
from monitord.cpus import others
from monitord.errors import StartError
from monitord.gateway.auth import Token
from monitord.gateway.options import GatewayOptions
from monitord.keeping import Keeping
from monitord.pipeline import Pipeline
from monitord.storefile import state_folder
from monitord.study import Shelves, Study
from monitord.warmup import Warmup
from rules import exrightfile, rulefile, sectors
from rules.alert import identity
from rules.rule import RuleSet
from rules.share import Share


def bar_cache(settings: Settings, feed: Feed) -> BarCache:
    """Return the cache of own bars: one for the real market, one for each that is made up or played again."""
    is_real = settings.feed.name not in ("simulated", "replay")
    return BarCache(settings.state_dir / "bars" / ("market" if is_real else identity(feed.source_id)))


def build_keeping(settings: Settings, feed: Feed) -> Keeping | None:
    """Make what writes our own bars; None where none are to be kept."""
    bars = settings.history.keep_bars
    return Keeping(bar_cache(settings, feed), bars=bars) if bars else None


def build_warmup(settings: Settings, feed: Feed, *, calendar: Callable[[], Calendar]) -> Warmup:
    """Make what finds the bars of the past."""
    return Warmup(
        feed,
        cache=bar_cache(settings, feed),
        files=settings.history.paths,
        exrights=lambda: load_exrights(settings, calendar()),
        calendar=calendar,
    )


def build_study(settings: Settings, feed: Feed, pipeline: Pipeline, *, calendar: Callable[[], Calendar]) -> Study:
    """Make what answers about names, recent bars and formulas."""
    shelves = Shelves(
        cache=bar_cache(settings, feed).folder,
        files=lambda: settings.history.paths(),
        exrights=lambda: load_exrights(settings, calendar()),
        calendar=calendar,
        recordings=lambda: recordings(settings),
        vendor=history_of(feed),
    )
    return Study(pipeline, shelves)


def recordings(settings: Settings) -> list[Path]:
    """Return the whole recorded sessions at hand, by name: those we record, and those a replay plays."""
    folder = settings.record.folder
    ours = sorted(folder.glob("*.parquet")) if folder is not None and folder.is_dir() else []
    played = [Path(path) for path in settings.feed.replay.inputs] if settings.feed.name == "replay" else []
    return [*ours, *played]


def build_broker(settings: Settings) -> Broker:
    """Make the broker: an external one by its url, else our own under the state directory."""
    section = settings.broker
    if section.url is not None:
        return ExternalBroker(section.url.get_secret_value())
    if settings.engine.share:
        raise StartError(
            "engine.share needs a Redis that all shares have in common, which none of them stops: set broker.url"
        )
    return EmbeddedBroker(
        settings.state_dir / "broker",
        port=section.port,
        socket=section.socket,
        strict=section.strict,
        password=None if section.password is None else section.password.get_secret_value(),
        bridge_password=None if section.bridge_password is None else section.bridge_password.get_secret_value(),
        cpus=others(settings.engine.cpus),
    )


def gateway_options(settings: Settings) -> GatewayOptions:
    """Turn the settings into the gateway's options; of tokens only their hashes go on."""
    section = settings.gateway
    return GatewayOptions(
        host=section.host,
        port=section.port,
        tokens=tuple(
            Token.of(token.token.get_secret_value(), name=token.name, channels=token.channels)
            for token in section.tokens
        ),
        allow_loopback_without_token=section.allow_loopback_without_token,
        allowed_origins=section.allowed_origins,
    )


def load_sectors(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Read and check every sector file: symbol → sectors; raises RuleFileError with all findings, or OSError."""
    return sectors.load(settings.instruments.texts())


def source_folder(settings: Settings, feed: Feed) -> Path:
    """Return where the state of this source is: offsets mean nothing in another one, so each has its own."""
    return state_folder(settings) / "sources" / identity(feed.source_id)


def load_exrights(settings: Settings, calendar: Calendar) -> str:
    """Read and check every ex-rights file and add the exchange's holidays, as the text of a control record.

    Raises RuleFileError with all findings, or OSError.
    """
    days = exrightfile.load(settings.instruments.exright_texts())
    return encode_exrights(days, closed=closed_weekdays(calendar, since=HOLIDAYS_SINCE))


def load_rules(settings: Settings) -> RuleSet:
    """Read and check every rule file, keep our share; raises RuleFileError with all findings, or OSError."""
    return parse_rules(settings, settings.rules.texts())


def parse_rules(settings: Settings, texts: Mapping[str, str]) -> RuleSet:
    """Check rule files given as path → text, keep our share; raises RuleFileError with all findings."""
    return _parsed(tuple(texts.items()), settings.rules.language, settings.engine.share)


@lru_cache(maxsize=1)
def _parsed(texts: tuple[tuple[str, str], ...], language: str, share: str) -> RuleSet:
    """Read rules, but not the same ones twice in a row, as at every start: a thousand take seconds."""
    return rulefile.load(dict(texts), language=language, share=Share.parse(share) if share else None)
