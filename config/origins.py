"""Where each setting came from: layers of values, their leaves, and the names of everything that can be set."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, SecretStr

Path: TypeAlias = tuple[str, ...]
"""A setting's keys from the top: ("gateway", "port")."""

PREFIX = "MONITORD_"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of one source as nested dicts, and how to name the place a path came from."""

    values: Mapping[str, Any]
    origin: Callable[[Path], str]


def merge(layers: Iterable[Layer]) -> tuple[dict[str, Any], dict[Path, str]]:
    """Lay the layers over each other, the first on top; lists are replaced, sections merged.

    Returns the merged tree and the origin of each of its leaves.
    """
    tree: dict[str, Any] = {}
    origins: dict[Path, str] = {}
    for layer in layers:
        for path, value in leaves(layer.values):
            if plant(tree, path, value):
                origins[path] = layer.origin(path)
    return tree, origins


def leaves(tree: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value that is not itself a section, with its path; an empty section is a leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


def plant(tree: dict[str, Any], path: Path, value: Any) -> bool:
    """Set the value at the path unless something stands there or in its way; tells whether it was set."""
    for key in path[:-1]:
        branch = tree.setdefault(key, {})
        if not isinstance(branch, dict):
            return False
        tree = branch
    if path[-1] in tree:
        return False
    tree[path[-1]] = value
    return True


def origin_of(origins: Mapping[Path, str], path: Path) -> str:
    """Name the origin of a path, of what it is part of, or of the first thing set inside it."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return next((origin for known, origin in origins.items() if known[: len(path)] == path), DEFAULT)


def dotted(path: Iterable[str]) -> str:
    """Write a path as in --set: gateway.port."""
    return ".".join(path)


def variable(path: Iterable[str]) -> str:
    """Write a path as an environment variable: MONITORD_GATEWAY__PORT."""
    return PREFIX + "__".join(path).upper()


def settable(model: type[BaseModel], above: Path = ()) -> Iterator[Path]:
    """Yield the path of every plain setting of the model and of its sections, in order."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settable(field.annotation, (*above, name))
        else:
            yield (*above, name)


def section_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """Return the model that stands at a path (list positions are keys of digits), None where none does."""
    for key in path:
        if key.isdigit():
            continue
        field = model.model_fields.get(key)
        inner = next(_models(field.annotation), None) if field is not None else None
        if inner is None:
            return None
        model = inner
    return model


def holds_secret(model: type[BaseModel], path: Path) -> bool:
    """Tell whether the setting at a path is a secret or holds one; an unknown path may be one too."""
    *above, last = [key for key in path if not key.isdigit()] or [""]
    owner = section_at(model, tuple(above))
    if owner is None or last not in owner.model_fields:
        return True
    return any(kind is SecretStr for kind in _types(owner.model_fields[last].annotation))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    for kind in _types(annotation, into_models=False):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield kind


def _types(annotation: Any, *, into_models: bool = True) -> Iterator[Any]:
    """Yield every type an annotation is built of: tuple[Token, ...] → Token, and with into_models its fields' too."""
    yield annotation
    for part in get_args(annotation):
        yield from _types(part, into_models=into_models)
    if into_models and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            yield from _types(field.annotation)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean …?", or "" where nothing is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else ""
