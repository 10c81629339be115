"""`Share`: which of the rules one engine takes where several divide them among themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b

from rules.errors import RuleError


@dataclass(frozen=True, slots=True)
class Share:
    """Part `number` of `count`, written 0/2. Every engine reads all inputs, so breadth and other symbols stay exact."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read 0/2; raises RuleError for what is no share."""
        found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
        share = None if found is None else cls(int(found[1]), int(found[2]))
        if share is None or share.number >= share.count:
            raise RuleError(f"{text!r} is no share: write 0/2 and 1/2 for the two halves of the rules")
        return share

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def takes(self, rule_id: str) -> bool:
        """Tell whether this part has the rule: by a hash of its id, so that other rules may come and go."""
        digest = blake2b(rule_id.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.number
