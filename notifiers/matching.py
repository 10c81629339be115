"""`Matcher`: which alerts a route, a silence or an inhibition is about; and what can be said of whole rules before."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Final, TypeAlias

from feeds.instruments import Board, Instrument, board_of
from notifiers.errors import DeliveryError
from notifiers.filters import AlertSource
from rules.alert import Alert, Event

Known: TypeAlias = Callable[[str], Instrument | None]
"""Returns what is known of a symbol, None if nothing is."""
LABEL: Final = "label."
WORDS: Final = ("rule", "symbol", "group", "leg", "severity", "event", "board")
"""What `value_of` knows besides labels."""


class Reach(IntEnum):
    """Whether alerts of a rule match: none of them, some perhaps, or all."""

    NEVER = 0
    PERHAPS = 1
    ALWAYS = 2


def nothing_known(symbol: str) -> Instrument | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher:
    """Conditions of which each that is given has to hold; within one, any of its entries will do.

    rules, symbols, severities  globs, upper and lower case apart.
    boards    what the symbol's code tells.
    sectors   of the symbol, as far as they are known: an unknown symbol is in none.
    labels    (name, glob) pairs, all of which have to match; a label the alert lacks is the empty text.
    include   texts of which the message has to hold one.
    exclude   texts of which the message may hold none.
    An alert without a symbol matches no condition on symbols, boards or sectors.
    """

    rules: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    boards: tuple[Board, ...] = ()
    sectors: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether every alert matches."""
        return self == EVERYTHING

    def matches(self, alert: Alert, known: Known = nothing_known) -> bool:
        """Tell whether the alert matches; `known` is asked only where sectors are."""
        return (
            _any_glob(self.rules, alert.rule)
            and _any_glob(self.severities, alert.severity)
            and (not self.events or alert.event in self.events)
            and _any_glob(self.symbols, alert.symbol)
            and (not self.boards or (alert.symbol is not None and board_of(alert.symbol) in self.boards))
            and (not self.sectors or self._in_sectors(alert.symbol, known))
            and all(fnmatchcase(alert.labels.get(name, ""), glob) for name, glob in self.labels)
            and (not self.include or any(text in alert.message for text in self.include))
            and not any(text in alert.message for text in self.exclude)
        )

    def _in_sectors(self, symbol: str | None, known: Known) -> bool:
        instrument = None if symbol is None else known(symbol)
        return instrument is not None and any(sector in self.sectors for sector in instrument.sectors)

    def reach(self, source: AlertSource, event: Event) -> Reach:
        """Tell whether this event of the source can match, and whether it always does."""
        if not (
            _any_glob(self.rules, source.rule)
            and _any_glob(self.severities, source.severity)
            and (not self.events or event in self.events)
            and all(fnmatchcase(source.labels.get(name, ""), glob) for name, glob in self.labels)
        ):
            return Reach.NEVER
        if (self.symbols or self.boards or self.sectors) and not source.has_symbols:
            return Reach.NEVER
        if self.symbols and not any(is_glob(symbol) or source.concerns(symbol) for symbol in self.symbols):
            return Reach.NEVER
        some = self.symbols or self.boards or self.sectors or self.include or self.exclude
        return Reach.PERHAPS if some else Reach.ALWAYS


EVERYTHING: Final = Matcher()


def is_glob(text: str) -> bool:
    """Tell whether a pattern stands for more than itself."""
    return any(letter in text for letter in "*?[")


def value_of(alert: Alert, word: str) -> str:
    """Return what an alert has by one of WORDS or `label.NAME`, "" where it has none."""
    if word.startswith(LABEL):
        return alert.labels.get(word.removeprefix(LABEL), "")
    if word == "board":
        return "" if alert.symbol is None else str(board_of(alert.symbol))
    value = getattr(alert, word)
    return "" if value is None else str(value)


def check_words(owner: str, words: Iterable[str], *, besides: tuple[str, ...] = ()) -> None:
    """Raise DeliveryError that names the owner for a word that `value_of` does not know."""
    for word in words:
        if word not in (*WORDS, *besides) and not (word.startswith(LABEL) and len(word) > len(LABEL)):
            known = ", ".join((*WORDS, *besides, f"{LABEL}NAME"))
            raise DeliveryError(f"{owner}: an alert has no {word!r}; there are {known}")


def _any_glob(globs: tuple[str, ...], text: str | None) -> bool:
    return not globs or (text is not None and any(fnmatchcase(text, glob) for glob in globs))
