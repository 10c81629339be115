"""Read the settings: command line > environment > .env > credentials directory > TOML file > defaults."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final

from dotenv import dotenv_values
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from config.errors import Complaint, ConfigError
from config.origins import (
    DEFAULT,
    PREFIX,
    Layer,
    Path,
    dotted,
    holds_secret,
    leaves,
    merge,
    nearest,
    origin_of,
    plant,
    section_at,
    settable,
    variable,
)
from config.settings import Settings

CONFIG_VARIABLE = f"{PREFIX}CONFIG"
FILE_NAME = "monitord.toml"
_ADDRESS: Final = re.compile(r"(\w+://)(?:[^/?#\s@]*@)?([^/?#\s]+[/?#])(?=[^\s])\S+")
"""An address with anything behind its host."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings and, by path, the origin of each that is not a default; file: the TOML file there is."""

    settings: Settings
    origins: Mapping[Path, str]
    file: FilePath | None = None

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (setting, value, origin) of every setting in order; secrets are masked."""
        return [
            (dotted(path), shown(value_at(self.settings, path)), self.origins.get(path, DEFAULT))
            for path in settable(Settings)
        ]


def load(overrides: Sequence[str] = (), *, config: FilePath | None = None) -> Loaded:
    """Read every source and check it. overrides: `section.key=value` from the command line, a later one wins.

    config: the TOML file; None = $MONITORD_CONFIG, else monitord.toml in the working directory if there is one.
    Raises ConfigError with everything that is wrong in the topmost wrong source, or in the merged values.
    """
    file = _config_file(config)
    layers = [
        _command_line(overrides),
        _environment(os.environ, origin="environment"),
        _dotenv(FilePath(".env")),
        _credentials(os.environ.get("CREDENTIALS_DIRECTORY")),
        _toml(file),
    ]
    tree, origins = merge(layers)
    try:
        return Loaded(Settings(**tree), origins, file)
    except ValidationError as error:
        raise ConfigError([_complaint(detail, origins) for detail in error.errors()]) from None


def text_of(loaded: Loaded, path: Path) -> str | None:
    """Return the text of the TOML file if this setting was read from it, else None."""
    if loaded.file is None or loaded.origins.get(path) != f"{loaded.file}: {dotted(path)}":
        return None
    return loaded.file.read_text(encoding="utf-8")


def value_at(settings: BaseModel, path: Path) -> Any:
    """Follow a path into the settings."""
    value: Any = settings
    for key in path:
        value = getattr(value, key)
    return value


def shown(value: Any) -> str:
    """Write a value for people; a secret is masked wherever it stands."""
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{name}: {shown(getattr(value, name))}" for name in type(value).model_fields) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(shown(member) for member in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    # SecretStr writes itself as asterisks; what an address leads to on its host may be a key, as in a mirror's path.
    return "" if value is None else _ADDRESS.sub(r"\1\2***", str(value))


def _command_line(overrides: Sequence[str]) -> Layer:
    texts: dict[str, str] = {}
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise ConfigError([Complaint(name, "command line", "has no value", "write --set section.key=value")])
        texts[name.strip()] = value
    paths = {name: tuple(name.lower().split(".")) for name in texts}
    return _text_layer(texts, paths, origin="command line", written=dotted, named=lambda name: f"--set {name}")


def _environment(variables: Mapping[str, str], *, origin: str) -> Layer:
    """Take MONITORD_SECTION__KEY; names of other programs are none of our business."""
    ours = {
        name: text
        for name, text in variables.items()
        if name.upper().startswith(PREFIX) and name.upper() != CONFIG_VARIABLE
    }
    paths = {name: tuple(name[len(PREFIX) :].lower().split("__")) for name in ours}
    return _text_layer(ours, paths, origin=origin, written=variable)


def _dotenv(file: FilePath) -> Layer:
    if not file.is_file():
        return Layer({}, dotted)
    variables = dotenv_values(file, encoding="utf-8")
    return _environment({name: text or "" for name, text in variables.items()}, origin=str(file))


def _credentials(folder: str | None) -> Layer:
    """Read systemd's credentials: one file a setting, named like its variable without MONITORD_: gateway__tokens.

    systemd puts the name of a whole folder that it hands on before each: monitord_gateway__tokens.
    """
    if not folder:
        return Layer({}, dotted)
    texts = {file.name: file.read_text(encoding="utf-8").strip() for file in sorted(FilePath(folder).iterdir())}
    paths = {name: tuple(name.lower().removeprefix(PREFIX.lower()).split("__")) for name in texts}
    return _text_layer(texts, paths, origin=f"credentials in {folder}", written="__".join)


def _text_layer(
    texts: Mapping[str, str],
    paths: Mapping[str, Path],
    *,
    origin: str,
    written: Callable[[Path], str],
    named: Callable[[str], str] = str,
) -> Layer:
    """Make a layer of named texts; raises ConfigError for names that stand for no setting.

    written: how this source spells a path, so that the hint can be copied.
    """
    known = {path: written(path) for path in settable(Settings)}
    complaints = [
        _unknown(name, path, known, origin=origin, written=written) for name, path in paths.items() if path not in known
    ]
    if complaints:
        raise ConfigError(complaints)
    tree: dict[str, Any] = {}
    names: dict[Path, str] = {}
    for name, path in paths.items():
        plant(tree, path, texts[name])
        names[path] = named(name)
    return Layer(tree, lambda path: f"{origin}: {names.get(path, dotted(path))}")


def _unknown(
    name: str, path: Path, known: Mapping[Path, str], *, origin: str, written: Callable[[Path], str]
) -> Complaint:
    inside = [spelt for other, spelt in known.items() if other[: len(path)] == path]
    if inside:
        return Complaint(name, origin, "is a section, not a value", f"set one of {', '.join(inside)}")
    return Complaint(name, origin, "there is no such setting", nearest(written(path), known.values()) or _LIST_HINT)


_LIST_HINT = "`monitord config show` lists all settings"


def _config_file(config: FilePath | None) -> FilePath | None:
    """Choose the TOML file; one that was asked for must exist."""
    asked = config or (FilePath(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if asked is None:
        return FilePath(FILE_NAME) if FilePath(FILE_NAME).is_file() else None
    if not asked.is_file():
        origin = "command line: --config" if config else f"environment: {CONFIG_VARIABLE}"
        raise ConfigError(
            [Complaint("config", origin, f"there is no file {asked}", "`monitord config init` writes one")]
        )
    return asked


def _toml(file: FilePath | None) -> Layer:
    if file is None:
        return Layer({}, dotted)
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([Complaint("config", str(file), f"is no TOML: {error}")]) from None
    known = {path: dotted(path) for path in settable(Settings)}
    sections = {path[:length] for path in known for length in range(1, len(path))}
    complaints = [  # pydantic would not see it where a stronger source sets something inside
        _unknown(dotted(path), path, known, origin=str(file), written=dotted)
        for path, value in leaves(values)
        if path in sections and value != {}
    ]
    if complaints:
        raise ConfigError(complaints)
    return Layer(values, lambda path: f"{file}: {dotted(path)}")


def _complaint(detail: ErrorDetails, origins: Mapping[Path, str]) -> Complaint:
    """Say what pydantic found in the words of the settings, without the value where it could be a secret."""
    keys = tuple(str(part) for part in detail["loc"])
    context = detail.get("ctx", {})
    if detail["type"] == "setting":
        keys += tuple(context["setting"].split("."))
        return Complaint(_written(keys), origin_of(origins, keys), context["wrong"], context["hint"])
    origin = origin_of(origins, keys)
    if detail["type"] == "extra_forbidden":
        hint = nearest(keys[-1], _siblings(keys)) or _LIST_HINT
        return Complaint(_written(keys), origin, "there is no such setting", hint)
    wrong = str(context["error"]) if detail["type"] == "value_error" else _lowered(detail["msg"])
    value = detail["input"]
    bears_password = isinstance(value, str) and "@" in value and "://" in value
    if isinstance(value, str | int | float) and not bears_password and not holds_secret(Settings, keys):
        wrong = f"{value!r}: {wrong}"
    return Complaint(_written(keys), origin, wrong)


def _siblings(keys: Path) -> Iterable[str]:
    model = section_at(Settings, keys[:-1])
    return model.model_fields if model is not None else ()


def _written(keys: Path) -> str:
    """Write a path with list positions in brackets: gateway.tokens[0].name."""
    return "".join(f"[{key}]" if key.isdigit() else f".{key}" for key in keys).lstrip(".")


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
