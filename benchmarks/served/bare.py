"""Starlette with orjson, as one writes it by hand: nothing is verified, checked, written down or counted.

KIND=cnn gunicorn bare:application -k uvicorn_worker.UvicornWorker
"""

import os
from typing import Any

import orjson
import torch
from networks import Served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_MODEL: list[Any] = []


async def predict(request: Request) -> Response:
    values = torch.tensor(orjson.loads(await request.body())["inputs"])
    with torch.inference_mode():
        scores = _MODEL[0](values)
    return Response(orjson.dumps({"outputs": scores.tolist()}), media_type="application/json")


def application() -> Starlette:
    """In the worker: torch is not to be warmed before a fork."""
    torch.set_num_threads(1)
    _MODEL.append(Served(os.environ["KIND"]))
    return Starlette(routes=[Route("/predict", predict, methods=["POST"])])
