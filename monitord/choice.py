"""Makes the feed that the settings choose, for the daemon and for the bridge."""

from __future__ import annotations

from pydantic import SecretStr

from config.settings import Settings
from feeds.errors import FeedError
from feeds.feed import Feed, load_feed


def build_feed(settings: Settings, *, broker_url: str | None = None) -> Feed:
    """Make the chosen feed; raises FeedError.

    broker_url: what a feed over Redis reads unless told otherwise; None = the broker's in the settings.
    """
    arguments = settings.feed.arguments()
    if settings.feed.name == "redis" and arguments["url"] is None:
        arguments["url"] = broker_url or settings.broker.url
        if arguments["url"] is None:
            raise FeedError(
                "feed.redis.url is not set, and neither is broker.url: name the Redis that the bridge writes to"
            )
    shown = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in arguments.items()
    }
    return load_feed(settings.feed.name)(**shown)
