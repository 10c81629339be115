"""Settings of order intents."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from config.values import Section


class OrdersSection(Section):
    """Order intents of tasks with auto_trade, on the Redis stream mon:orders; others may carry them out."""

    enabled: bool = False  # whether there are intents at all
    dry_run: bool = True  # intents say that nothing is to be done
    quantity: int = Field(default=100, ge=100, le=1_000_000, multiple_of=100)  # shares of each order
    max_cny: float = Field(default=50_000.0, gt=0, allow_inf_nan=False)  # yuan of one order at most
    max_orders_per_day: int = Field(default=10, ge=0, le=10_000)  # intents of one day at most
    valid_s: float = Field(default=30.0, ge=1, le=3600)  # an older alert is not ordered any more

    def options(self) -> dict[str, Any]:
        """Return the fields as the publisher of intents takes them."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "enabled"}
