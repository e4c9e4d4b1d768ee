"""`/docs`: the API's description as one plain page, made from it, that loads nothing."""

import html
import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from autocoder.core.api.service import Service

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1rem; margin: 2rem 0 0; border-top: 1px solid #8884; padding-top: 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: 13px }
pre { background: #8881; padding: .6rem; overflow-x: auto }
td, th { text-align: left; vertical-align: top; padding: 0 1rem 0 0 }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd } a { color: #8bf } }
"""


def add_page(app: FastAPI, _service: Service) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(described(app.openapi()), headers=headers)


def described(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    info = document["info"]
    title = html.escape(f"{info['title']} {info['version']}")
    routes = "".join(
        part
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
        for part in _route(f"{verb.upper()} {path}", operation, document)
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{STYLE}</style><h1>{title}</h1><p>{html.escape(info['description'])}"
        "<p>The same for programs: <a href=openapi.json>openapi.json</a>. "
        "Over TCP every request needs <code>Authorization: Bearer TOKEN</code>."
        f"{routes}</html>"
    )


def _route(name: str, operation: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{html.escape(name)}</code></h2>"
    yield f"<p>{html.escape(operation.get('description', operation.get('summary', '')))}</p>"
    fields = [
        (f"{each['name']} ({each['in']})", each["schema"], each.get("description", ""))
        for each in operation.get("parameters", ())
    ]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = _resolved(content["schema"], document)
        fields += [
            (field, spec, spec.get("description", ""))
            for field, spec in schema.get("properties", {}).items()
        ]
    if fields:
        rows = "".join(
            f"<tr><td><code>{html.escape(field)}</code><td>{html.escape(_kind(spec, document))}"
            f"<td>{html.escape(told)}"
            for field, spec, told in fields
        )
        yield f"<table>{rows}</table>"
    for code, answer in operation["responses"].items():
        if code < "300":
            yield f"<p>{code}: {html.escape(answer['description'])}</p>"
            for content in answer.get("content", {}).values():
                if "example" in content:
                    yield f"<pre>{html.escape(json.dumps(content['example'], indent=1))}</pre>"
    refused = ", ".join(code for code in operation["responses"] if code >= "400")
    yield f"<p>Refusals: {refused}</p>" if refused else ""


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The schema, or the one it refers to."""
    reference = schema.get("$ref", "")
    if not reference:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return found


def _kind(schema: dict[str, Any], document: dict[str, Any]) -> str:
    spec = _resolved(schema, document)
    if "anyOf" in spec:
        return " or ".join(_kind(each, document) for each in spec["anyOf"])
    kind = " | ".join(map(str, spec["enum"])) if "enum" in spec else str(spec.get("type", ""))
    bounds = [
        f"{word} {spec[key]:g}"
        for key, word in (("minimum", "from"), ("maximum", "to"), ("maxLength", "at most"))
        if key in spec
    ]
    if "default" in schema and schema["default"] not in (None, ""):
        bounds.append(f"default {schema['default']}")
    return " ".join((kind, *bounds))
