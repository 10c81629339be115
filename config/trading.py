"""Settings of order intents."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from config.values import Section, complaint


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


class TradeSection(Section):
    """Live order intents carried out by the vendor's terminal on the bridge's machine; both sides have to want it."""

    enabled: bool = False  # whether intents are read at all
    path: str = ""  # of the terminal, its folder userdata_mini
    account: str = ""  # number of the account
    session: int = Field(default=8710, ge=1)  # a number that no other program on the terminal has
    max_quantity: int = Field(default=100, ge=1, le=1_000_000)  # shares of an order at most, whatever the intent says
    max_cny: float = Field(default=50_000.0, gt=0, allow_inf_nan=False)  # yuan of an order at most

    @model_validator(mode="after")
    def _knows_the_account(self) -> TradeSection:
        for name in ("path", "account"):
            if self.enabled and not getattr(self, name):
                raise complaint(name, "is missing, and trading is enabled", "set it, or leave enabled = false")
        return self
