"""The house rules that a program can check."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.conftest import LONG

ROOT = Path(__file__).parent.parent
PACKAGES = ("monitord", "notifiers", "rules", "feeds", "config")

ONLY_IN = {
    "redis": {
        "feeds/connection.py",
        "feeds/remote.py",
        "feeds/tickstream.py",
        "notifiers/alertstream.py",
        "notifiers/channel.py",
        "notifiers/subscription.py",
        "notifiers/group.py",
        "notifiers/ordering.py",
        "notifiers/orders.py",
        "notifiers/redis_list.py",
        "notifiers/reports.py",
        "monitord/broker.py",
    },
    "xtquant": {"feeds/xt.py", "monitord/xttrader.py"},
    "sqlite3": {
        "feeds/spool.py",
        "monitord/database.py",
        "monitord/store.py",
        "monitord/schema.py",
        "monitord/storefile.py",
        "monitord/upkeep.py",
        "monitord/deliveries.py",
        "monitord/positions.py",
        "monitord/silences.py",
        "monitord/storedrules.py",
    },
    "pydantic_settings": {"config/settings.py", "config/loading.py"},
}
"""Package → the only files that may import it."""

PURE = {"asyncio", "threading", "time", "pathlib", "os", "socket", "sqlite3", "aiohttp", "redis", "xtquant", "random"}
"""What no file of rules/ imports: it takes text and batches, and its time is that of the ticks."""

MAY_CREATE_TASKS = {"monitord/app.py", "monitord/bridge.py"}
"""The one TaskGroup of each process, daemon and bridge. One inside a gateway connection's own handler is as good."""
CONNECTION_HANDLERS = "monitord/gateway/"

BANNED_NAMES = {"utils", "helpers", "common", "manager", "base", "data", "info", "item", "helper"}


@cache
def sources() -> list[tuple[str, ast.Module]]:
    paths = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the top-level package of every import, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def test_imports_point_down_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    status = lint_imports(no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_a_foreign_package_is_imported_only_where_it_belongs(package: str) -> None:
    importing = {name for name, tree in sources() if package in imports(tree)}
    assert importing <= ONLY_IN[package]


def test_of_the_feeds_the_quote_client_alone_speaks_http() -> None:
    assert {name for name, tree in sources() if name.startswith("feeds/") and "aiohttp" in imports(tree)} == {
        "feeds/quotes_client.py"
    }


def test_rules_are_pure() -> None:
    impure = {
        f"{name} imports {package}"
        for name, tree in sources()
        if name.startswith("rules/")
        for package in imports(tree)
        if package in PURE
    }
    assert impure == set()


def test_tasks_are_born_in_the_apps_task_group_alone() -> None:
    born = {
        f"{name}:{node.lineno}"
        for name, tree in sources()
        if name not in MAY_CREATE_TASKS
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("create_task", "ensure_future")
        and not (name.startswith(CONNECTION_HANDLERS) and not _is_asyncio(node.func.value))
    }
    assert born == set()


def _is_asyncio(owner: ast.expr) -> bool:
    """Tell whether the task would be nobody's: asyncio.create_task, or that of a loop."""
    text = ast.unparse(owner)
    return text == "asyncio" or "loop" in text


def test_the_test_files_that_go_first_are_there() -> None:
    assert [name for name in LONG if not (ROOT / "tests" / name).is_file()] == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    parts = {part for name, _ in sources() for part in Path(name).with_suffix("").parts}
    assert not parts & BANNED_NAMES


def test_a_broad_except_swallows_nothing() -> None:
    """`except Exception` (at a task's top, around a vendor) raises again or logs."""
    silent = {
        f"{name}:{node.lineno}"
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not any(
            isinstance(inner, ast.Raise) or (isinstance(inner, ast.Call) and ast.unparse(inner.func).startswith("log."))
            for inner in ast.walk(node)
        )
    }
    assert silent == set()
