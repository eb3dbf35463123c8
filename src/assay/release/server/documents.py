"""The interface of one version, as OpenAPI and as a page that needs no other host."""

import html
from typing import Any

import orjson


def openapi(name: str, version: str, classes: list[str], shape: tuple[int, int, int], most: int) -> bytes:
    """OpenAPI 3.1, as JSON."""
    height, width, channels = shape
    predict = {
        "summary": f"Scores of {name} for images of {height}×{width}×{channels}",
        "requestBody": {"required": True, "content": _inputs(shape, most)},
        "responses": _answers(version, classes),
    }
    paths = {"/predict": {"post": predict}} | {
        path: {"get": {"summary": summary, "responses": {"200": {"description": "Yes."}} | more}}
        for path, (summary, more) in _OTHERS.items()
    }
    document = {"openapi": "3.1.0", "info": {"title": name, "version": version}, "paths": paths}
    return orjson.dumps(document)


def _inputs(shape: tuple[int, int, int], most: int) -> dict[str, Any]:
    """What may be sent: by content type."""
    height, width, channels = shape
    size = height * width * channels
    number = {"type": "number", "minimum": 0, "maximum": 255}
    nested = _several(_several(_several(number, channels), width), height)
    samples = {
        "type": "array",
        "items": {"oneOf": [_several(number, size), nested]},
        "minItems": 1,
        "maxItems": most,
    }
    raw = f"Little-endian float32, {size} for each sample, row by row, channels last."
    return {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "additionalProperties": False,
                "properties": {"inputs": samples},
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary", "description": raw}},
    }


def _answers(version: str, classes: list[str]) -> dict[str, Any]:
    """What comes back: by status."""
    properties = {
        "outputs": {"type": "array", "items": _several({"type": "number"}, len(classes))},
        "classes": {"const": classes},
        "model_version": {"const": version},
        "request_id": {"type": "string"},
    }
    scores = {
        "application/json": {
            "schema": {"type": "object", "required": list(properties), "properties": properties}
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    }
    said = ("error", "reason", "request_id")
    refusal = {
        "type": "object",
        "required": list(said),
        "properties": {key: {"type": "string"} for key in said},
    }
    return {"200": {"description": "One score per class for each sample.", "content": scores}} | {
        status: {"description": meaning, "content": {"application/json": {"schema": refusal}}}
        for status, meaning in _STATUS.items()
    }


def _several(items: dict[str, Any], count: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": count, "maxItems": count}


_STATUS = {
    "400": "The body is not what is asked for.",
    "401": "No identity, or one that is not accepted.",
    "413": "Too many bytes or samples.",
    "415": "A content type that is not read here.",
    "422": "Numbers of another shape, kind or range.",
    "429": "More requests than this user may send.",
    "500": "The model failed, or gave NaN or infinity.",
    "503": "Too many requests wait, or no answer within the time limit.",
}
_OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "/health/live": ("Whether the worker answers.", {}),
    "/health/ready": (
        "Whether it takes requests: its model gave the expected outputs.",
        {"503": {"description": "It does not."}},
    ),
    "/metrics": ("Prometheus metrics of this version.", {}),
    "/openapi.json": ("This document.", {}),
    "/docs": ("This document as a page.", {}),
}


def page(document: bytes) -> bytes:
    """The document for people: plain HTML."""
    content = orjson.loads(document)
    title = html.escape(f"{content['info']['title']} {content['info']['version']}")
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>body{{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}"
        "code,pre{font-family:monospace;background:#f2f2f2;padding:.1rem .3rem}pre{overflow:auto;padding:1rem}"
        f"td{{padding:.1rem 1rem .1rem 0;vertical-align:top}}</style><h1>{title}</h1>"
    ]
    for path, methods in content["paths"].items():
        for method, operation in methods.items():
            rows = "".join(
                f"<tr><td>{status}</td><td>{html.escape(answer['description'])}</td></tr>"
                for status, answer in operation["responses"].items()
            )
            parts.append(
                f"<h2><code>{method.upper()} {path}</code></h2><p>{html.escape(operation['summary'])}</p>"
                f"<table>{rows}</table>"
            )
    text = html.escape(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())
    parts.append(f'<h2><a href="/openapi.json">openapi.json</a></h2><pre>{text}</pre></html>')
    return "".join(parts).encode()
