"""The one error root of market data."""

from __future__ import annotations


class FeedError(Exception):
    """A feed cannot do what was asked; the text says what, where and what to do about it."""
