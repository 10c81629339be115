"""The manner of `/api/v1`: what the system before this one spoke. Answers come as {"code", "message", "data"}.

code is 20000 for what went well, else the HTTP status with two zeros behind; a refusal bears `error` besides, as every
other route's does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any, Final, Generic, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from monitord.errors import NoneSuchError
from monitord.routes.route import ApiError, Ask
from monitord.rulebook import NotHereError, RefusedRules
from monitord.storedrules import TakenError

OLD: Final = "/api/v1/"
T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


class Envelope(BaseModel, Generic[T]):
    """What went well."""

    code: Literal[20000] = 20000
    message: str = "success"
    data: T


class Refusal(BaseModel):
    """What did not. code: the HTTP status with two zeros behind; error: as of all other routes."""

    model_config = ConfigDict(extra="forbid")

    code: int
    message: str
    data: None
    error: dict[str, Any]


def refusal(path: str, status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a refusal in the manner of the path."""
    if not path.startswith(OLD):
        return {"error": error}
    return {"code": status * 100, "message": error["msg"], "data": None, "error": error}


async def checked_body(ask: Ask, model: type[Model], *, besides: Collection[str] = ()) -> Model:
    """Read the request's JSON; raises ApiError 422 that names the field.

    besides: fields that a client sends back as it got them, and that mean nothing here.
    """
    try:
        given = orjson.loads(await ask.request.read() or b"{}")
    except ValueError:  # orjson may quote what it read
        raise ApiError(422, "bad_body", "the body is not JSON, nested too deep, or holds half a character") from None
    if isinstance(given, dict):
        given = {key: value for key, value in given.items() if key not in besides}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise unprocessable(error) from None


def unprocessable(error: ValidationError) -> ApiError:
    """Return the refusal of a body, by its first complaint."""
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"])) or first.get("ctx", {}).get("field")
    msg = first["msg"].removeprefix("Value error, ")
    return ApiError(422, "bad_body", f"{field or 'the body'}: {msg}", field=field)


async def guarded(work: Callable[[], Awaitable[T]]) -> T:
    """Do something about a task or a rule made by API; raises ApiError for what is not to be."""
    try:
        return await work()
    except ValidationError as error:
        raise unprocessable(error) from None
    except RefusedRules as error:
        raise bad_rules(error) from None
    except TakenError as error:
        raise ApiError(409, "taken", str(error), field="stock_code") from None
    except NotHereError as error:
        raise ApiError(409, "not_here", str(error)) from None
    except NoneSuchError as error:
        raise ApiError(404, "not_found", str(error), field="id") from None


def bad_rules(refused: RefusedRules) -> ApiError:
    """Return the refusal of rules, with every finding and the field each is about."""
    findings = [{**asdict(finding), "field": field} for finding, field in refused.findings]
    first = findings[0]
    hint = f" ({first['hint']})" if first["hint"] else ""
    return ApiError(422, "bad_rules", f"{first['message']}{hint}", field=first["field"], findings=findings)


def number_in(ask: Ask, what: str) -> int:
    """Return the id in the path; raises ApiError 404 for what is no id."""
    text = ask.request.match_info["id"]
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ApiError(404, "not_found", f"there is no {what} {text[:100]!r}", field="id")
    return int(text)
