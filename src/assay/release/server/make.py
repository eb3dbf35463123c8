"""A worker's application from its settings: what imports torch is imported here."""

from typing import Any

import torch

from assay.release.bundle.read import read
from assay.release.server.application import Application
from assay.release.server.documents import openapi
from assay.release.server.metrics import Metrics
from assay.release.server.model import load_model
from assay.release.server.plugs import load_plugs
from assay.release.server.predictor import Predictor
from assay.release.server.settings import Settings


def make_application(settings: Settings) -> tuple[Application, dict[str, Any]]:
    """The application, and what its health says.

    Raises: ValueError for a bundle that is damaged, cannot be built, or does not give its golden outputs.
    """
    serving = settings.serving
    torch.set_num_threads(serving.threads)
    bundle = read(settings.bundle)
    manifest = bundle.manifest
    model = load_model(bundle, serving.device)
    metrics = Metrics(manifest.name, manifest.version, settings.role)
    plugs = load_plugs(settings, metrics.count_lines, metrics.count_copy)
    if plugs.keys is not None:
        jwt = serving.jwt
        days = None if jwt is None else jwt.rotation_days
        metrics.watch_keys(plugs.keys, {} if days is None else {"jwks": days * 86_400})
    predictor = Predictor(
        model, manifest.classes, manifest.input.shape, manifest.version, serving, plugs, metrics
    )
    health = {
        "model": manifest.name,
        "model_version": manifest.version,
        "role": settings.role,
        "golden": {
            "inputs": manifest.golden.count,
            "deviation": model.deviation,
            "tolerance": manifest.golden.tolerance,
        },
        "form": model.form,
        "not_frozen": model.passed_over,
        "forward_ms": round(model.seconds * 1000, 4),
    }
    interface = openapi(
        manifest.name, manifest.version, manifest.classes, manifest.input.shape, serving.limits.samples
    )
    return Application(predictor, metrics, serving.limits, health, interface), health
