"""The interface of one version, as OpenAPI and as a page that needs no other host."""

import html
from typing import Any

import orjson


def openapi(name: str, version: str, classes: list[str], shape: tuple[int, int, int], most: int) -> bytes:
    """OpenAPI 3.1, as JSON."""
    height, width, channels = shape
    number = {"type": "number", "minimum": 0, "maximum": 255}
    size = height * width * channels

    def several(items: dict[str, Any], count: int) -> dict[str, Any]:
        return {"type": "array", "items": items, "minItems": count, "maxItems": count}

    nested = several(several(several(number, channels), width), height)
    refusal = {
        "type": "object",
        "required": ["error", "reason", "request_id"],
        "properties": {key: {"type": "string"} for key in ("error", "reason", "request_id")},
    }
    properties = {
        "outputs": {"type": "array", "items": several({"type": "number"}, len(classes))},
        "classes": {"const": classes},
        "model_version": {"const": version},
        "request_id": {"type": "string"},
    }
    raw = {"schema": {"type": "string", "format": "binary"}}
    answers: dict[str, Any] = {
        "200": {
            "description": "One score per class for each sample.",
            "content": {
                "application/json": {
                    "schema": {"type": "object", "required": list(properties), "properties": properties}
                },
                "application/octet-stream": raw,
            },
        }
    }
    for status, meaning in _STATUS.items():
        answers[status] = {
            "description": meaning,
            "content": {"application/json": {"schema": refusal}},
        }
    sample = {"oneOf": [several(number, size), nested]}
    inputs = {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {"inputs": {"type": "array", "items": sample, "minItems": 1, "maxItems": most}},
    }
    predict = {
        "summary": f"Scores of {name} for images of {height}×{width}×{channels}",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": inputs},
                "application/octet-stream": {
                    "schema": {
                        "type": "string",
                        "format": "binary",
                        "description": f"Little-endian float32, {size} for each sample, row by row, channels last.",
                    }
                },
            },
        },
        "responses": answers,
    }
    paths = {"/predict": {"post": predict}} | {
        path: {"get": {"summary": summary, "responses": {"200": {"description": "Yes."}} | more}}
        for path, (summary, more) in _OTHERS.items()
    }
    document = {"openapi": "3.1.0", "info": {"title": name, "version": version}, "paths": paths}
    return orjson.dumps(document)


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
