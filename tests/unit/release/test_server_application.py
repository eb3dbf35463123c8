"""The application of one worker, called as a server calls it; its model is a real bundle's."""

import asyncio
import dataclasses
import os
import re
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
import uvloop
from asgi import request
from made_bundle import made_bundle, made_results

from assay.release.bundle.read import read
from assay.release.routing.copies import received, receiver
from assay.release.schema import Batching, Limits, Serving
from assay.release.server.application import Application
from assay.release.server.batching import Batcher
from assay.release.server.group import cores_of
from assay.release.server.make import make_application
from assay.release.server.metrics import Metrics
from assay.release.server.model import WrongModel, load_model
from assay.release.server.plugs import Plugs, _after_answers, load_plugs
from assay.release.server.predictor import Predictor
from assay.release.server.settings import Settings


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    results = made_results(tmp_path_factory.mktemp("server"), seeds=1)
    return read(made_bundle(results, "mlp"))


@pytest.fixture(scope="module")
def model(bundle):
    return load_model(bundle)


@pytest.fixture
def kept():
    return {"lines": [], "copies": []}


def made(bundle, model, kept=None, **serving):
    """An application, without reading and warming the model again."""
    manifest = bundle.manifest
    settings = Serving(**serving)
    metrics = Metrics(manifest.name, manifest.version, "stable")
    plugs = Plugs()
    if kept is not None:
        plugs = Plugs(log=kept["lines"].append, shadow=lambda *call: kept["copies"].append(call))
    predictor = Predictor(
        model, manifest.classes, manifest.input.shape, manifest.version, settings, plugs, metrics
    )
    return Application(predictor, metrics, settings.limits, {"model_version": manifest.version}, b"{}")


def asked(application, *calls, **more):
    """Responses to several requests at once, or to one."""

    async def all_of_them():
        return await asyncio.gather(*(request(application, *call, **more) for call in calls))

    return asyncio.run(all_of_them())


def json_body(samples):
    return orjson.dumps({"inputs": [np.ravel(sample).tolist() for sample in samples]})


def test_scores_are_the_bundle_s_in_every_form(bundle, model, kept):
    inputs, expected = bundle.golden()
    tolerance = bundle.manifest.golden.tolerance
    application = made(bundle, model, kept)
    (answer,) = asked(
        application, ("/predict", json_body(inputs)), x_request_id="abc-1", x_assay_assigned="stable"
    )
    assert answer.status == 200
    assert np.abs(np.array(answer.json["outputs"]) - expected).max() <= tolerance
    assert answer.json["classes"] == bundle.manifest.classes and answer.json["request_id"] == "abc-1"
    assert answer.json["model_version"] == bundle.manifest.version
    raw = inputs.astype("<f4").tobytes()
    (answer,) = asked(application, ("/predict", raw), content_type="application/octet-stream")
    assert np.abs(np.array(answer.json["outputs"]) - expected).max() <= tolerance
    kinds = {"content_type": "application/octet-stream", "accept": "application/octet-stream"}
    (answer,) = asked(application, ("/predict", raw), **kinds, x_assay_shadow="1")
    scores = np.frombuffer(answer.body, "<f4").reshape(expected.shape)
    assert np.abs(scores - expected).max() <= tolerance
    assert answer.headers[b"x-model-version"].decode() == bundle.manifest.version
    assert [line.status for line in kept["lines"]] == [200, 200, 200]
    assert kept["lines"][0].assigned == "stable" and kept["lines"][2].shadow
    assert len(kept["copies"]) == 2, "a copy is not copied again"


def test_a_refused_request_never_reaches_the_model(bundle, model, kept):
    def never(_):
        raise AssertionError

    application = made(bundle, dataclasses.replace(model, forward=never), kept)
    for body, status in ((b"{", 400), (json_body([[1]]), 422), (json_body([[300] * 64]), 422)):
        (answer,) = asked(application, ("/predict", body))
        assert answer.status == status and answer.json["reason"] and answer.json["error"]
    (metrics,) = asked(application, ("/metrics",), method="GET")
    assert b'assay_serving_requests_total{code="range"} 1.0' in metrics.body
    assert not kept["lines"] and not kept["copies"]


@pytest.mark.parametrize("wrong", [slice(None), slice(1)], ids=["all", "one of them"])
def test_outputs_that_are_not_finite_are_an_error_that_is_counted(bundle, model, kept, wrong):
    def spoiled(images):
        scores = model.forward(images).clone()
        scores[:, wrong] = np.nan
        return scores

    application = made(bundle, dataclasses.replace(model, forward=spoiled), kept)
    (answer,) = asked(application, ("/predict", json_body([[1] * 64])))
    assert answer.status == 500 and answer.json["error"] == "non_finite"
    (metrics,) = asked(application, ("/metrics",), method="GET")
    assert b'assay_serving_requests_total{code="non_finite"} 1.0' in metrics.body
    assert kept["lines"][0].status == 500 and np.isnan(kept["lines"][0].outputs[:, wrong]).all()


def test_a_model_that_always_fails_fills_no_disk(bundle, model, capsys):
    def broken(_):
        raise RuntimeError("inside")

    application = made(bundle, dataclasses.replace(model, forward=broken))
    application.predictor._last_error = time.monotonic() + 60  # it was told a moment ago
    assert {answer.status for answer in asked(application, *[("/predict", json_body([[1] * 64]))] * 3)} == {
        500
    }
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("given", ['a"b', "a b", "a" * 129, ""])
def test_a_request_id_that_is_none_is_replaced(bundle, model, given):
    (answer,) = asked(made(bundle, model), ("/predict", json_body([[1] * 64])), x_request_id=given)
    assert answer.status == 200 and re.fullmatch("[0-9a-f]{32}", answer.json["request_id"])


@pytest.mark.parametrize("size", [1, 8])
def test_a_model_that_fails_answers_500_and_the_next_request_is_answered(bundle, model, kept, size, capsys):
    calls = []

    def sometimes(images):
        calls.append(len(images))
        if len(calls) == 1:
            raise RuntimeError("secret of the inside")
        return model.forward(images)

    application = made(
        bundle, dataclasses.replace(model, forward=sometimes), kept, batching=Batching(size=size)
    )
    for status in (500, 200):
        (answer,) = asked(application, ("/predict", json_body([[1] * 64])))
        assert answer.status == status and b"secret" not in answer.body
    assert "secret of the inside" in capsys.readouterr().err
    assert kept["lines"][0].outputs is None and kept["lines"][0].status == 500


def test_bodies_that_are_too_large_or_too_slow(bundle, model):
    application = made(bundle, model, limits=Limits(body_bytes=1000, timeout_seconds=0.05))
    (answer,) = asked(application, ("/predict", b"x" * 1001))
    assert (
        answer.status == 413 and answer.headers[b"connection"] == b"close" and "1000" in answer.json["reason"]
    )
    (answer,) = asked(application, ("/predict", b""), parts=[b"x" * 600, b"x" * 600])
    assert answer.status == 413
    (answer,) = asked(application, ("/predict", b""), parts=[b"{"], ends=False)
    assert answer.status == 408 and answer.headers[b"connection"] == b"close"
    (answer,) = asked(application, ("/predict", b"{}"), content_length="-1")
    assert answer.status == 413
    body = json_body([[1] * 64])
    application = made(bundle, model, limits=Limits(body_bytes=len(body)))
    (answer,) = asked(application, ("/predict", body))
    assert answer.status == 200, "as large as it may be"
    (answer,) = asked(application, ("/predict", b""), parts=[body[:5], body[5:]])
    assert answer.status == 200


def test_a_body_in_parts_is_put_together(bundle, model):
    body = json_body([[7] * 64])
    (whole,) = asked(made(bundle, model), ("/predict", body))
    parts = [body[:10], b"", body[10:50], body[50:]]
    (answer,) = asked(made(bundle, model), ("/predict", b""), parts=parts)
    assert answer.json["outputs"] == whole.json["outputs"]


def test_other_places(bundle, model):
    application = made(bundle, model)
    for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs"):
        (answer,) = asked(application, (path,), method="GET") if path != "/docs" else [None]
        assert answer is None or answer.status == 200
        (answer,) = asked(application, (path,))
        assert answer.status == 405 and answer.headers[b"allow"] == b"GET, HEAD"
    (answer,) = asked(application, ("/predict",), method="GET")
    assert answer.status == 405 and answer.headers[b"allow"] == b"POST"
    (answer,) = asked(application, ("/other",))
    assert answer.status == 404 and "POST /predict" in answer.json["reason"]


def test_when_it_closes_each_answer_ends_its_connection(bundle, model):
    application = made(bundle, model)
    application.closing = True
    (answer,) = asked(application, ("/predict", json_body([[1] * 64])))
    assert answer.status == 200 and answer.headers[b"connection"] == b"close"
    (answer,) = asked(application, ("/health/ready",), method="GET")
    assert answer.status == 503 and answer.json["ready"] is False


@pytest.mark.parametrize("slow", [False, True])
def test_requests_that_wait_together_are_one_batch_and_get_their_own_scores(bundle, model, kept, slow):
    sizes = []

    def counted(images):
        sizes.append(len(images))
        return model.forward(images)

    batched = dataclasses.replace(model, forward=counted, seconds=1.0 if slow else 1e-5)
    application = made(bundle, batched, kept, batching=Batching(size=4, wait_ms=1000))
    inputs, expected = bundle.golden()
    bodies = [json_body(inputs[i : i + 1 + i % 2]) for i in range(8)]
    answers = asked(application, *(("/predict", body) for body in bodies))
    for i, answer in enumerate(answers):
        own = expected[i : i + 1 + i % 2]
        assert np.abs(np.array(answer.json["outputs"]) - own).max() <= bundle.manifest.golden.tolerance
    assert sum(sizes) == 12 and max(sizes) <= 4 and len(sizes) < 8
    assert all(line.queue_ms is not None for line in kept["lines"])


def test_who_has_gone_is_not_computed_for():
    sizes = []

    def counted(samples):
        sizes.append(len(samples))
        return samples

    async def put():
        batcher = Batcher(counted, size=3, wait=60, inline=True)
        gone, *others = [batcher.put(np.full((1, 1), number, np.float32)) for number in range(2)]
        gone.cancel()
        others += [batcher.put(np.full((1, 1), number, np.float32)) for number in (2, 3)]
        batcher._flush()
        return [float(one.result().scores.item()) for one in others]

    assert asyncio.run(put()) == [1, 2, 3] and sum(sizes) == 3


def test_a_request_alone_waits_no_longer_than_it_may(bundle, model):
    application = made(bundle, model, batching=Batching(size=64, wait_ms=1))
    (answer,) = asked(application, ("/predict", json_body([[1] * 64])))
    assert answer.status == 200


def test_what_waits_too_long_or_too_many_is_refused(bundle, model, monkeypatch):
    slow = dataclasses.replace(model, seconds=1.0)
    application = made(
        bundle, slow, batching=Batching(size=64, wait_ms=1000), limits=Limits(timeout_seconds=0.05)
    )
    (answer,) = asked(application, ("/predict", json_body([[1] * 64])))
    assert answer.status == 503 and answer.json["error"] == "timeout"
    application = made(bundle, slow, batching=Batching(size=64, wait_ms=20))
    monkeypatch.setattr(application.predictor.batcher, "_most", 2)
    answers = asked(application, *(("/predict", json_body([[1] * 64])) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200, 200, 503, 503, 503]
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.json["error"] == "overloaded" and refused.headers[b"retry-after"] == b"1"


def test_an_edited_or_another_model_is_refused(bundle, tmp_path, monkeypatch):
    settings = Settings(bundle=bundle.folder)
    application, health = make_application(settings)
    assert health["golden"]["deviation"] <= health["golden"]["tolerance"] and health["form"] == "frozen"
    (page,) = asked(application, ("/docs",), method="GET")
    assert b"POST /predict" in page.body and b"http" not in page.body.replace(b"http-equiv", b"")
    (document,) = asked(application, ("/openapi.json",), method="GET")
    assert document.json["info"]["version"] == bundle.manifest.version
    with pytest.raises(ValueError, match="no folder of a bundle"):
        make_application(Settings(bundle=tmp_path / "none"))
    network = type(bundle).network

    def other(self, device="cpu"):
        found = network(self, device)
        found.shift += 0.01
        return found

    monkeypatch.setattr(type(bundle), "network", other)
    with pytest.raises(WrongModel, match="not the model that was measured"):
        load_model(bundle)


def test_a_graph_that_cannot_be_frozen_or_is_wrong_runs_as_it_is(bundle, monkeypatch):
    from assay.release.server import model as module

    def fails(*_):
        raise RuntimeError("cannot be traced\nfor reasons")

    monkeypatch.setattr(module, "_frozen", fails)
    found = load_model(bundle)
    assert found.form == "eager" and found.passed_over == "RuntimeError: cannot be traced"
    plain = module._eager(bundle, "cpu")
    monkeypatch.setattr(module, "_frozen", lambda *_: lambda images: plain(images) + (len(images) == 2) * 0.1)
    found = load_model(bundle)
    assert found.form == "eager" and "not the model" in found.passed_over


def test_a_server_imports_what_its_lock_has_and_its_master_less():
    lock = (Path(__file__).parents[3] / "requirements" / "serve.txt").read_text()
    locked = {line.split("==")[0].lower() for line in lock.splitlines() if "==" in line}
    code = (
        "import sys\n"
        "import assay.release.server.group\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "import assay.release.server.make, assay.release.server.worker\n"
        "print(' '.join({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    owners = metadata.packages_distributions()
    found = {
        owner.lower().replace("_", "-") for name in done.stdout.split() for owner in owners.get(name, [])
    }
    assert {"torch", "gunicorn", "orjson"} <= found
    # torch itself takes NVIDIA's where it is there.
    assert found - {"assay", "nvidia-ml-py"} <= locked


def test_counting_all_at_once_is_counting_one_by_one():
    from prometheus_client import CollectorRegistry, Histogram, generate_latest

    from assay.release.server.metrics import BUCKETS, CODES

    metrics = Metrics("model", "version", "stable")
    plain = Histogram(
        "assay_serving_seconds", "x", buckets=BUCKETS, registry=(registry := CollectorRegistry())
    )
    values = [0.0, 0.0005, 0.00051, 0.003, 0.004, 4.9, 5.0, 5.1, 100.0]
    for value in values:
        metrics.count("ok", value, None, 2)
        plain.observe(value)
    metrics.count("a code of nobody", 0.0, 0.0, 0)
    plain.observe(0.0)
    lines = metrics.text().decode().splitlines()
    expected = [
        line
        for line in generate_latest(registry).decode().splitlines()
        if "_bucket" in line or "_sum" in line
    ]
    assert [
        line
        for line in lines
        if line.startswith(("assay_serving_seconds_bucket", "assay_serving_seconds_sum"))
    ] == expected
    assert 'assay_serving_requests_total{code="ok"} 9.0' in lines
    assert 'assay_serving_requests_total{code="other"} 1.0' in lines
    assert "assay_serving_samples_total 18.0" in lines and "assay_serving_queue_seconds_count 1.0" in lines
    assert "other" not in CODES


def test_a_copy_of_what_was_answered_leaves_by_the_release_s_queue(bundle, model, tmp_path):
    settings = Settings(bundle=bundle.folder, copies=tmp_path / "queue")
    application = made(bundle, model)
    metrics = Metrics("m", "v", "stable")
    application.predictor._plugs = load_plugs(settings, copied=metrics.count_copy)
    with receiver(tmp_path / "queue") as queue:
        body = json_body([[5] * 64])
        for given in (b"{", body):
            asked(application, ("/predict", given), x_request_id="one")
        headers, copied = received(queue)
        assert copied == body and headers["x-request-id"] == "one"
        with pytest.raises(BlockingIOError):
            received(queue)
    asked(application, ("/predict", body))
    told = metrics.text().decode()
    assert all(
        f'assay_serving_copies_total{{outcome="{outcome}"}} 1.0' in told for outcome in ("handed", "lost")
    )


def test_settings_come_from_the_release_and_what_is_wrong_is_named(bundle, tmp_path):
    import argparse

    from assay.release.server.command import cpus_of, declare, settings_of

    parser = argparse.ArgumentParser()
    declare(parser)

    def settings(*words):
        return settings_of(parser.parse_args([str(bundle.folder), *words]))

    found = settings("--workers", "3", "--batch", "4", "--timeout", "2.5")
    assert found.serving.workers == 3 and found.serving.batching.size == 4
    assert found.serving.limits.timeout_seconds == 2.5 and found.predictions is not None
    for words, said in (
        (("--workers", "0"), "workers"),
        (("--port", "70000"), "--port 70000"),
        (("--release", str(tmp_path / "none")), "none"),
    ):
        with pytest.raises(ValueError, match=said):
            settings(*words)
    with pytest.raises(ValueError, match="no bundle"):
        settings_of(parser.parse_args([str(tmp_path)]))
    there = len(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match=r"serving\.cpus"):
        cpus_of(Serving(cpus=there), "candidate")
    if there > 1:
        half = there // 2
        both = cpus_of(Serving(cpus=half), "stable"), cpus_of(Serving(cpus=half), "candidate")
        assert not set(both[0]) & set(both[1]) and len(both[0]) == len(both[1]) == half
    assert [cores_of([4, 5, 6, 7], 2, place) for place in (0, 1)] == [[4, 5], [6, 7]]
    assert cores_of([4], 2, 1) == [4]


def test_a_worker_computes_by_as_many_threads_as_it_was_told(bundle):
    before = torch.get_num_threads()
    try:
        for serving, threads in ((Serving(threads=2), 2), (Serving(), 1)):
            make_application(Settings(bundle=bundle.folder, serving=serving))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_what_waits_for_answers_begins_when_they_are_on_the_wire(new_loop):
    """A request hands its line over before its answer is written: whoever made it then would keep the answer waiting."""
    here, there = socket.socketpair()
    here.settimeout(5)
    seen = []

    class Answering(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, _):
            _after_answers(lambda: seen.append(here.recv(10)))
            _after_answers(over.set)
            self.transport.write(b"answer")

    async def serve():
        await asyncio.get_running_loop().create_connection(Answering, sock=there)
        here.send(b"request")
        await asyncio.wait_for(over.wait(), 60)

    with here, asyncio.Runner(loop_factory=new_loop) as runner:
        over = asyncio.Event()
        runner.run(serve())
    assert seen == [b"answer"]
