"""The API's description (OpenAPI 3.1), made from the table of routes and the wire models; it cannot go stale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from minga import __version__


@dataclass(frozen=True, slots=True)
class Described:
    """One route in words: `path` as OpenAPI writes it; `body` and `answer` are wire models, or a media type."""

    method: str
    path: str
    summary: str
    body: type[BaseModel] | str | None = None
    answer: type[BaseModel] | str | None = None
    status: int = 200
    is_public: bool = False


def describe(routes: Iterable[Described]) -> dict[str, Any]:
    """The whole OpenAPI document."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation: dict[str, Any] = {
            "summary": route.summary,
            "responses": {
                str(route.status): _content("done", route.answer, schemas),
                "default": _content("refused: code, fact and remedy", None, schemas)
                | {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}},
            },
        }
        if "{" in route.path:
            names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
            operation["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ]
        if route.body is not None:
            operation["requestBody"] = {"required": True} | _content("", route.body, schemas)
            operation["requestBody"].pop("description")
        if not route.is_public:
            operation["security"] = [{"lease": []}]
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Minga provider", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"lease": {"type": "http", "scheme": "bearer"}},
        },
    }


def _content(text: str, kind: type[BaseModel] | str | None, schemas: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": text}
    if isinstance(kind, str):
        answer["content"] = {kind: {"schema": {"type": "string"}}}
    elif kind is not None:
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[kind.__name__] = schema
        answer["content"] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
    return answer


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "blame", "fact", "remedy"],
            "properties": {
                "code": {"type": "string"},
                "blame": {"enum": ["tenant", "provider", "network", "ours"]},
                "fact": {"type": "string"},
                "remedy": {"type": "string"},
                "details": {"type": "object"},
            },
        }
    },
}
