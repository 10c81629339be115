"""The one error root of channels and receivers."""

from __future__ import annotations


class DeliveryError(Exception):
    """An alert cannot be published, read or delivered; the text says what, where, what to do, never a URL or secret."""


class BrokerUnavailable(DeliveryError):
    """Redis does not answer or refuses the call; worth trying again later."""
