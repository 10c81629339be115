"""Do the files load: rules, positions, sectors, ex-rights days?"""

from __future__ import annotations

from typing import Final

from monitord.checks import Examined, Finding, Verdict, in_thread

DEADLINE_S: Final = 20.0


async def check(examined: Examined) -> Finding:
    """Load every file as the daemon does at its start."""
    return await in_thread(lambda: load(examined))


def load(examined: Examined) -> Finding:
    """Load the files of these settings."""
    from monitord.building import load_rules, load_sectors
    from rules import exrightfile, positions
    from rules.errors import RuleError

    settings = examined.settings
    try:
        rules = load_rules(settings)
        load_sectors(settings)
        exrightfile.load(settings.instruments.exright_texts())
        positions.load(settings.positions.texts())
    except (RuleError, OSError, UnicodeDecodeError) as error:
        return Finding(Verdict.FAIL, str(error), "mend the file; `monitord check FILE` shows each place with a hint")
    if not rules.rules:
        return Finding(Verdict.WARN, "no rules: nothing will ever fire", "name rule files in rules.files")
    text = f"{len(rules.rules)} rules load"
    if rules.warnings:
        return Finding(
            Verdict.WARN, f"{text}, with {len(rules.warnings)} warnings", "look at them: `monitord check FILE`"
        )
    return Finding(Verdict.OK, text)
