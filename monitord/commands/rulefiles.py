"""Reading rule files named on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from monitord.commands import CommandError

if TYPE_CHECKING:
    from rules.rule import RuleSet


def read_texts(files: Sequence[Path]) -> dict[str, str]:
    """Read the files: path as given → text, in order. Raises CommandError for one that cannot be read as UTF-8."""
    return {str(file): _text(file) for file in files}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(f"{file}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise CommandError(f"{file}: cannot be read: {error.strerror}") from None


def load_rules(files: Sequence[Path], *, language: str = "zh") -> RuleSet:
    """Load rule files that must be good, with messages in this language; raises CommandError with every finding."""
    from rules.errors import RuleError
    from rules.rulefile import load

    try:
        return load(read_texts(files), language=language)
    except RuleError as error:
        raise CommandError(f"the rules cannot be used\n{error}") from None
