"""Messages that a receiver may refuse for what they say: it answers them with a code that nobody knows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

REFUSALS: Final = 8
"""So often a message is refused by unknown codes, while others are taken, until it is to blame itself."""
REMEMBERED: Final = 1024


@dataclass(slots=True)
class _Suspect:
    """refusals: by unknown codes; accepted: messages that the receiver had taken when the first of them came."""

    refusals: int
    accepted: int


@dataclass(slots=True)
class Suspects:
    """Tells a message that is refused from a receiver that refuses all. Lives in memory: a restart counts anew."""

    _accepted: int = 0
    _by_id: OrderedDict[int, _Suspect] = field(default_factory=OrderedDict)

    def refused(self, delivery_id: int) -> bool:
        """Count a refusal by an unknown code; return whether the message is to blame for it."""
        suspect = self._by_id.setdefault(delivery_id, _Suspect(0, self._accepted))
        suspect.refusals += 1
        if len(self._by_id) > REMEMBERED:
            self._by_id.popitem(last=False)
        return suspect.refusals >= REFUSALS and self._accepted > suspect.accepted

    def accepted(self, delivery_id: int) -> None:
        """Note that the receiver took a message."""
        self._accepted += 1
        self.forget(delivery_id)

    def forget(self, delivery_id: int) -> None:
        self._by_id.pop(delivery_id, None)

    def divided(self, parts: Iterable[int]) -> None:
        """Take up the parts of a message that was to blame: one more refusal, while another is taken, is enough."""
        self._by_id.update((part, _Suspect(REFUSALS - 1, self._accepted)) for part in parts)
