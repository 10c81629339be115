"""Who is told: a delivery for each receiver and program, under names that nobody else has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from config.loading import load
from monitord.store import Store
from monitord.told import Told, build_told
from notifiers.errors import DeliveryError
from notifiers.matching import nothing_known

WEBHOOK = 'notify.webhooks=[{{"name": "{}", "url": "https://x.cn"}}]'
ADVISER = "adviser.url=https://x.cn"
ORDERS = "orders.enabled=true"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "store.db")
    yield opened
    await opened.close()


async def told(store: Store, *overrides: str, cleanup: AsyncExitStack) -> Told:
    settings = load(overrides).settings
    return await build_told(settings, store, broker_url="redis://127.0.0.1:1/0", known=nothing_known, cleanup=cleanup)


async def test_programs_are_delivered_to_behind_the_receivers(store: Store) -> None:
    async with AsyncExitStack() as cleanup:
        made = await told(store, WEBHOOK.format("ours"), ADVISER, ORDERS, cleanup=cleanup)
        assert [delivery.name for delivery in made.deliveries] == ["ours", "adviser", "orders"]
        assert set(made.desk.counters()) == {"ours", "adviser", "orders"}
        assert made.reports is not None


async def test_nobody_asks_for_reports_where_there_are_no_orders(store: Store) -> None:
    async with AsyncExitStack() as cleanup:
        made = await told(store, cleanup=cleanup)
        assert made.deliveries == ()
        assert made.reports is None


@pytest.mark.parametrize(("name", "setting"), [("adviser", ADVISER), ("orders", ORDERS)])
async def test_a_receiver_cannot_have_the_name_of_a_program(store: Store, name: str, setting: str) -> None:
    async with AsyncExitStack() as cleanup:
        with pytest.raises(DeliveryError, match=f"a receiver is named '{name}', which is taken; give it another name"):
            await told(store, WEBHOOK.format(name), setting, cleanup=cleanup)
