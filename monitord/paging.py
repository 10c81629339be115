"""One page of a listing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from monitord.errors import StoreError

PAGE_LIMIT: Final = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows of a listing. total: rows of all pages; page counts from 1."""

    rows: tuple[T, ...]
    total: int
    page: int
    page_size: int


def check_page(page: int, page_size: int) -> None:
    """Raise StoreError for a page that cannot be."""
    if page < 1 or not 1 <= page_size <= PAGE_LIMIT:
        raise StoreError(f"page {page} of {page_size} rows: pages count from 1 and hold 1 to {PAGE_LIMIT} rows")
