"""A recording beside a daemon: whatever fails in it ends the recording, and alerts go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from feeds.errors import FeedError

if TYPE_CHECKING:
    from monitord.recording import Recording  # it brings Arrow along, for those alone who record

log = structlog.get_logger(__name__)


async def run_beside(recording: Recording) -> None:
    """Record until it is stopped; whatever fails ends the recording, and alerts go on."""
    try:
        await recording.run()
    except FeedError as error:
        log.error("recording_failed", why=str(error))
        await _abandon(recording)
    except Exception:
        log.exception("recording_failed")
        await _abandon(recording)


async def finish(recording: Recording | None) -> None:
    """Make the recording's last file whole; what fails is completed by the next run."""
    if recording is None:
        return
    try:
        await recording.stop()
    except FeedError as error:
        log.error("recording_failed", why=str(error))
    except Exception:
        log.exception("recording_failed")


async def _abandon(recording: Recording) -> None:
    """Close what failed; its last words can fail as it did."""
    try:
        await recording.abandon()
    except Exception:
        log.exception("recording_failed")
