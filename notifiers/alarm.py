"""A failing receiver is an alert itself, told by the other receivers: an episode of the rule `delivery`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from feeds.sessions import date_text
from notifiers.retry import ReceiverState
from notifiers.routing import DELIVERY_RULE, RECEIVER_LABEL
from rules.alert import Alert, Event, identities


def with_alarm(
    receiver: str, state: ReceiverState, *, now_ms: int, why: str, origin: str = ""
) -> tuple[ReceiverState, Alert | None]:
    """Return the state with the alarm that it asks for begun or ended, and the event of that; None if there is none.

    why: what failed, for people, redacted. origin: of the store that counts the receiver's alarms; another daemon or
    share that publishes into the same stream counts its own. An episode begins once and ends once, whatever fails in
    between.
    """
    event = partial(_event, receiver, now_ms=now_ms, origin=origin)
    if state.is_troubled(now_ms) and not state.alarmed:
        begun = replace(state, alarms=state.alarms + 1, alarmed=True)
        text = state.disabled or why or "no answer"
        return begun, event(begun, Event.FIRE, why=text, message=f"推送失败：{receiver}（{text}）")
    if state.alarmed and not state.failures and state.disabled is None:
        ended = replace(state, alarmed=False)
        return ended, event(ended, Event.RESOLVE, why=None, message=f"推送恢复：{receiver}")
    return state, None


def _event(
    receiver: str, state: ReceiverState, event: Event, *, now_ms: int, origin: str, why: str | None, message: str
) -> Alert:
    alert_id, episode_id = identities(DELIVERY_RULE, origin, None, receiver, "", state.alarms, event=event)
    return Alert(
        id=alert_id, episode_id=episode_id, event=event, rule=DELIVERY_RULE, rev="", severity="warning",
        labels={RECEIVER_LABEL: receiver}, trade_date=date_text(now_ms), episode=state.alarms, ts_event_ms=now_ms,
        period="tick", why=why, message=message,
    )  # fmt: skip
