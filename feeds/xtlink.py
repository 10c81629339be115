"""`XtLink`: the vendor's package, our client of its terminal, and what is subscribed there.

Two traps of the vendor's module shape this room. Any of its functions may silently replace a lost client by a new one
(`get_client`), which knows nothing of our subscriptions; so the client is kept, and the one that the module holds is
compared with it. And a call that was given up may come back much later, with a client or a subscription that nobody
asks for any more; so each attempt has a licence, and undoes what it did once that is revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Final, NamedTuple, TypeAlias, TypeGuard

import structlog

from feeds.errors import FeedError
from feeds.xtmessages import NOT_HERE, REFUSED, explain

SINGLE_SUBSCRIPTIONS: Final = 50
"""Up to here symbols are subscribed one by one, beyond as a whole quote: the vendor's own advice."""

log = structlog.get_logger(__name__)

OnPush: TypeAlias = Callable[[int, Any], None]
"""Takes (epoch of the subscription, payload), on threads of the vendor."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to subscribe.

    codes: markets, or symbols. pulse: symbols that are only watched for a sign of life and not among `codes`.
    """

    codes: tuple[str, ...]
    by_market: bool
    pulse: tuple[str, ...] = ()

    @property
    def one_by_one(self) -> bool:
        """Whether the codes are subscribed singly."""
        return not self.by_market and len(self.codes) <= SINGLE_SUBSCRIPTIONS


@dataclass(frozen=True, slots=True)
class Subscribed:
    """What stands: the client, which one of its kind it is, the epoch of its callbacks, the subscriptions' numbers."""

    client: Any
    generation: int
    epoch: int
    numbers: tuple[int, ...]


class Checked(NamedTuple):
    """The state of the link. same: the vendor's module still holds our client."""

    connected: bool
    same: bool


class Licence:
    """Permission of one attempt to change what is subscribed; revoked from any thread when it is given up."""

    __slots__ = ("epoch", "revoked")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.revoked = False


class Revoked(Exception):
    """The attempt was given up while it ran; nobody waits for its result."""


class XtLink:
    """Blocking calls of the vendor, for a lane's thread. It keeps no state of the link: that is `Subscribed`."""

    def __init__(
        self,
        wanted: Wanted,
        *,
        address: str = "",
        port: int | None = None,
        on_push: OnPush,
        on_pulse: OnPush,
        on_status: Callable[[Any], None],
    ) -> None:
        self._wanted = wanted
        self.address, self.port = address, port
        self._on_push, self._on_pulse, self._on_status = on_push, on_pulse, on_status
        self.xtdata: Any = None
        """The vendor's module, None before `load`."""
        self.pulse_refused = 0
        """Symbols of the pulse that the terminal would not give; the others do as well."""

    def load(self) -> None:
        """Import the vendor's package; raises FeedError that says what else there is."""
        self.xtdata = import_vendor("xtdata")
        self.xtdata.enable_hello = False

    def establish(self, old: Subscribed | None, licence: Licence, *, reconnect: bool) -> Subscribed:
        """Subscribe everything once, on a connected client; what `old` holds is given back before.

        reconnect: on a new client whatever the old one says of itself. Raises FeedError or the vendor's bare Exception,
        and Revoked where the licence was; then nothing of this attempt stays subscribed.
        """
        client = self._client(old, reconnect=reconnect)
        if old is not None and not self._give_back(old, client):
            client = self._connect(again=True)  # it kept what we no longer want: only an end of it makes sure
        numbers: list[int] = []
        try:
            self._subscribe(client, licence, numbers)
            if licence.revoked:
                raise Revoked
        except BaseException:
            _unsubscribe(client, numbers)
            raise
        same = old is not None and old.client is client
        generation = old.generation if old is not None and same else (old.generation if old is not None else 0) + 1
        return Subscribed(client, generation, licence.epoch, tuple(numbers))

    def check(self, standing: Subscribed) -> Checked:
        """Tell whether our client is connected, and the vendor's module holds it still."""
        if not standing.client.is_connected():
            return Checked(connected=False, same=False)
        # A connected module answers with the client it holds; a lost one makes a new one, and that is news as well.
        return Checked(connected=True, same=self.xtdata.get_client() is standing.client)

    def leave(self, standing: Subscribed | None) -> None:
        """Unsubscribe and disconnect, as far as that goes. Never connects anew, and never raises."""
        try:
            if self.xtdata is None:
                return
            self.xtdata.watch_xtquant_status(None)
            if standing is not None and standing.client.is_connected():
                # On the very client that subscribed: the module's own function makes a new one of a lost one first.
                _unsubscribe(standing.client, standing.numbers)
            self.xtdata.disconnect()
            if standing is not None and standing.client.is_connected():
                standing.client.shutdown()  # the module has let go of it
        except Exception as error:  # the vendor raises bare Exception; we are leaving anyway
            log.warning("xt_close_failed", error=str(error))

    def _client(self, old: Subscribed | None, *, reconnect: bool) -> Any:
        if old is None or reconnect:
            return self._connect(again=old is not None)
        return self.xtdata.get_client()

    def _connect(self, *, again: bool) -> Any:
        self.xtdata.watch_xtquant_status(self._on_status)  # before it connects, or the client never learns of it
        connect = self.xtdata.reconnect if again else self.xtdata.connect
        return connect(self.address, self.port)

    def _give_back(self, old: Subscribed, client: Any) -> bool:
        """End what is subscribed on the old client; False if it is still the client in use and would not."""
        if not old.client.is_connected():
            return True
        if old.client is client:
            return _unsubscribe(client, old.numbers)
        # The module took another client behind our back, and the old one goes on pushing.
        _unsubscribe(old.client, old.numbers)
        old.client.shutdown()
        return True

    def _subscribe(self, client: Any, licence: Licence, numbers: list[int]) -> None:
        """Subscribe what is wanted; `numbers` gets those on this client, also when it ends with an error."""
        wanted, epoch = self._wanted, licence.epoch

        def on_push(payload: Any) -> None:
            self._on_push(epoch, payload)

        def on_pulse(payload: Any) -> None:
            self._on_pulse(epoch, payload)

        if wanted.one_by_one:
            calls = [(code, partial(self.xtdata.subscribe_quote, code, period="tick")) for code in wanted.codes]
        else:
            told = ", ".join(wanted.codes[:3])
            calls = [(told, partial(self.xtdata.subscribe_whole_quote, list(wanted.codes)))]
        for told, call in calls:
            number = self._on_client(client, licence, partial(call, callback=on_push))
            if not _is_granted(number):
                raise FeedError(f"xt: {REFUSED} for {told} (answer {number}): {explain(REFUSED)}")
            numbers.append(number)
        self.pulse_refused = 0
        for code in wanted.pulse:
            call = partial(self.xtdata.subscribe_quote, code, period="tick", callback=on_pulse)
            number = self._on_client(client, licence, call)
            if _is_granted(number):
                numbers.append(number)
            else:
                self.pulse_refused += 1

    def _on_client(self, client: Any, licence: Licence, subscribe: Callable[[], Any]) -> Any:
        """Subscribe on this very client.

        Race: the module's functions use the client it holds, and replace one that is lost; another attempt does so as
        well, if this one was given up and comes back. What then stands on a client that is not ours is taken back.
        """
        if licence.revoked:
            raise Revoked
        number = subscribe() if self.xtdata.get_client() is client else None
        holder = self.xtdata.get_client()
        if holder is not client:
            if _is_granted(number):
                _unsubscribe(holder, [number])
            raise FeedError("xt: the terminal was restarted while subscribing")
        return number


def import_vendor(module: str) -> Any:
    """Import a module of the vendor's package; raises FeedError that says what else there is."""
    try:
        return import_module(f"xtquant.{module}")
    except Exception as error:  # no package, no binaries for this platform, or its own start-up failed: all end here
        means = explain(str(error))
        told = f" {means}" if means and NOT_HERE not in means else ""
        raise FeedError(f"xt: the package xtquant cannot be used here ({error}).{told} {NOT_HERE}") from error


def _is_granted(number: Any) -> TypeGuard[int]:
    return isinstance(number, int) and number > 0


def _unsubscribe(client: Any, numbers: Sequence[int]) -> bool:
    """End subscriptions on the client that has them; False if it failed. A lost client has none any more."""
    try:
        if client.is_connected():
            for number in numbers:
                client.unsubscribe_quote(number)
    except Exception as error:  # the vendor raises bare Exception
        log.warning("xt_unsubscribe_failed", error=str(error))
        return False
    return True
