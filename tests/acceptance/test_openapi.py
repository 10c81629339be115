"""Every route of the OpenAPI document, asked by schemathesis of a daemon that runs: nothing ends in a 5xx."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode

from tests.acceptance.inprocess import running

pytestmark = pytest.mark.acceptance

EXAMPLES = 2
"""Of each operation that fit its schema, and as many that don't: by hand, more of them find what is rare."""
NOT_ASKED = ("/docs/{file}", "/metrics")
"""1.7 MB each time; and nothing to vary."""
TASK = {"stock_code": "600519.SH", "stop_loss": 1.0}
MONITOR = {"rule": {"select": ["600519.SH"], "when": "LAST > 1", "rearm": "LAST < 1"}}


def ask_all(document: dict[str, Any], base: str) -> Counter[tuple[str, int]]:
    """Ask each operation some examples; count (operation, status). Blocks: for a worker thread."""
    answered: Counter[tuple[str, int]] = Counter()
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        if operation.path in NOT_ASKED:
            continue
        # Half of the questions are about what there is: a made-up id would end at 404 each time.
        known = {"path_parameters": {"id": "1"}} if "{id}" in operation.path else {}
        for mode in GenerationMode:

            @settings(
                max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode, **known))
            def ask(case: Any) -> None:
                response = case.call(base_url=base)
                answered[f"{case.method} {case.path}", response.status_code] += 1
                case.validate_response(response, checks=[not_a_server_error])

            with suppress(Unsatisfiable):  # there is nothing in it that could be wrong
                ask()
    return answered


async def test_no_question_ends_in_a_server_error(tmp_path: Path) -> None:
    settings_of_daemon = {
        "state_dir": tmp_path / "state", "rules.files": "shipped:example.yaml", "feed.simulated.symbols": 5,
        "notify.redis": '[{"name": "list", "url": "redis://127.0.0.1:1/0", "key": "k"}]',
    }  # fmt: skip
    async with running(settings_of_daemon) as session:
        for path, body in (("monitor/tasks", TASK), ("realtime/monitors", MONITOR)):
            async with session.post(f"/api/v1/{path}", json=body) as reply:
                assert reply.status == 200, await reply.text()
        async with session.get("/v1/openapi.json") as reply:
            document = await reply.json()
        base = str(session._base_url).rstrip("/")
        answered = await asyncio.to_thread(ask_all, document, base)
    operations = {f"{method.upper()} {path}" for path, ways in document["paths"].items() for method in ways}
    assert {operation for operation, _ in answered} == {one for one in operations if not one.endswith(NOT_ASKED)}
    assert {status for _, status in answered} >= {200, 404, 422}
