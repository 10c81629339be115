"""The one error root of the daemon."""

from __future__ import annotations


class DaemonError(Exception):
    """The daemon cannot do what was asked; the text says what, where and what to do, never a secret."""


class NoneSuchError(DaemonError):
    """There is none of this id; the text says of what."""


class StoreError(DaemonError):
    """The store cannot be opened, read or written."""


class CheckpointError(DaemonError):
    """A checkpoint cannot be written."""


class EngineError(DaemonError):
    """The engine failed at an input; only recovery by a new process goes on."""


class BrokerError(DaemonError):
    """The broker cannot be started, reached or used."""


class StartError(DaemonError):
    """The daemon cannot start; the text says what to change."""


class Stopping(DaemonError):
    """The daemon stops and changes nothing any more; the next process will."""
