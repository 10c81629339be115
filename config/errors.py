"""The one error root of settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing wrong with one setting: `setting` is its dotted path, `origin` where the value came from."""

    setting: str
    origin: str
    wrong: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.setting} (from {self.origin}): {self.wrong}"
        return f"{text}\n    hint: {self.hint}" if self.hint else text


class ConfigError(Exception):
    """Settings that cannot be used; str() holds every complaint, and never the value of a secret."""

    def __init__(self, complaints: list[Complaint]) -> None:
        self.complaints = complaints
        super().__init__("\n".join(str(complaint) for complaint in complaints))
