"""The OpenAPI document, made from the route table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from monitord.routes.envelope import OLD, Refusal
from monitord.routes.route import Route

REF: Final = "#/components/schemas/{model}"
MEANINGS: Final = {
    400: "The request cannot be understood",
    401: "No token, or a wrong one",
    403: "The token may not, or the page's origin is not allowed",
    404: "There is no such thing",
    409: "It does not go with what there is already",
    422: "The body, the rules or the positions cannot be used",
    503: "Not ready",
}


class ErrorDetail(BaseModel):
    """field: the parameter that is wrong, where it is one."""

    code: str
    msg: str
    field: str | None = None


class ErrorReply(BaseModel):
    error: ErrorDetail


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "monitord",
            "version": version("monitord"),
            "summary": "Alerts, rules, tasks, quotes and health",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(routes: Sequence[Route]) -> dict[str, Any]:
    models = [route.reply for route in routes if route.reply is not None]
    models += [route.body for route in routes if route.body is not None]
    told: list[type[BaseModel]] = list(dict.fromkeys([*models, ErrorReply, Refusal]))
    _, schema = models_json_schema([(model, "serialization") for model in told], ref_template=REF)
    found: dict[str, Any] = schema["$defs"]
    return found


def _operation(route: Route) -> dict[str, Any]:
    errors = {*route.errors, *(() if route.anyone else (401, 403)), *(() if route.query is None else (400,))}
    given = {} if route.body is None else {"content": {"application/json": {"schema": _ref(route.body)}}}
    return {
        "summary": route.summary,
        "tags": [_tag(route.path)],
        "operationId": route.handler.__name__,
        "parameters": [*_path_parameters(route.path), *_query_parameters(route.query)],
        **({"requestBody": {"required": True, **given}} if given else {}),
        "security": [] if route.anyone else [{"bearer": []}],
        "responses": {
            "200": {"description": route.summary, "content": {route.media: {"schema": _ref(route.reply)}}},
            **{str(status): _error(status, route) for status in sorted(errors)},
        },
    }


def _tag(path: str) -> str:
    """Return the heading under which a path is shown."""
    parts = path.removeprefix(OLD).removeprefix("/v1/").strip("/").split("/")
    return f"{OLD}{parts[0]}" if path.startswith(OLD) else parts[0]


def _error(status: int, route: Route) -> dict[str, Any]:
    model = route.reply if status == 503 else Refusal if route.path.startswith(OLD) else ErrorReply
    return {"description": MEANINGS[status], "content": {"application/json": {"schema": _ref(model)}}}


def _ref(model: type[BaseModel] | None) -> dict[str, Any]:
    # A generic model's name has brackets in it, which a reference may not.
    name = "" if model is None else re.sub(r"[^a-zA-Z0-9.\-_]", "_", model.__name__)
    return {"$ref": REF.format(model=name)} if name else {"type": "string"}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(query: type[BaseModel] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    schema = query.model_json_schema(ref_template=REF)
    defs = schema.get("$defs", {})
    return [
        {"name": name, "in": "query", "required": False, "schema": _inlined(inner, defs)}
        for name, inner in schema["properties"].items()
    ]


def _inlined(schema: Any, defs: dict[str, Any]) -> Any:
    """Put definitions where they are referred to: a parameter's are not among the components."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(defs[schema["$ref"].rpartition("/")[2]], defs)
        return {key: _inlined(value, defs) for key, value in schema.items()}
    return [_inlined(part, defs) for part in schema] if isinstance(schema, list) else schema
