"""The controls of benchmarks/: both sides must do the same work, and what was left out is said."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def training():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import training

        return training
    finally:
        sys.path.remove(str(BENCHMARKS))


def options(**changed):
    chosen = {"model": "builtin:cnn", "size": 16, "timm": None, "torchvision": None, "timm_model": None}
    sizes = {"epochs": 2, "images": 80, "batch_size": 16, "device": "cpu", "tables": []}
    return argparse.Namespace(**(chosen | sizes | changed))


def test_networks_that_differ_are_refused(training, monkeypatch):
    training.check_networks(options())
    wider = training.Model(source="builtin:cnn", options={"width": 32})
    monkeypatch.setattr(training, "model_of", lambda _: wider)
    with pytest.raises(SystemExit, match=r"bare loop's network has \d+ parameters, Assay's has \d+"):
        training.check_networks(options())


def test_references_that_are_not_given_are_named(training, capsys):
    training.run(options())
    said = capsys.readouterr().out
    assert "left out: timm's" in said and "left out: torchvision's" in said


@pytest.mark.parametrize("checkout", ["timm", "torchvision"])
def test_a_folder_that_is_no_checkout_is_refused(training, tmp_path, checkout):
    with pytest.raises(SystemExit, match=f"--{checkout} .*train.py"):
        training.contenders(options(model="resnet18", **{checkout: tmp_path}), tmp_path, "memory")


def test_too_little_to_time_is_refused(training):
    with pytest.raises(SystemExit, match="--epochs"):
        training.run(options(epochs=1))
    with pytest.raises(SystemExit, match="--images"):
        training.run(options(images=72))


@pytest.mark.parametrize(
    ("name", "end", "other"),
    [
        ("torchvision", "Test:  Acc@1 11.328 Acc@5 52.734", "Test:   [0/2]  eta: 0:00:00  acc1: 9.3750"),
        ("timm", "Test: [   1/1]  Time: 0.038 (0.043)", "Test: [   0/1]  Time: 0.048 (0.048)"),
        ("bare", "epoch 3: 0.102", "no epoch"),
    ],
)
def test_the_end_of_an_epoch_is_told_from_other_lines(training, name, end, other):
    assert training.EPOCH_ENDS[name].search(end)
    assert not training.EPOCH_ENDS[name].search(other)


def test_an_interval_holds_the_ratio_and_widens_with_the_spread(training):
    steady, restless = [10.0, 10.1, 9.9, 10.0, 10.0], [5.0, 20.0, 10.0, 2.0, 11.0]
    low, high = training.spread(steady, steady[::-1])
    assert low <= 1 <= high and high - low < 0.05
    low, high = training.spread(steady, restless)
    assert high - low > 0.5


def test_tensors_in_memory_are_each_image_once_cropped_and_flipped(training):
    from contenders import MEAN, PADDING, STD, Loader

    images = torch.full((10, 8, 8, 3), 200, dtype=torch.uint8)
    images[:, :, 0] = 255  # the left edge
    labels = torch.arange(10)
    loader = Loader(images, labels, 5, training=True)
    batches = list(loader)
    assert sorted(int(label) for _, some in batches for label in some) == list(range(10))
    bright = (255 / 255 - MEAN[0]) / STD[0]
    dark = (0 - MEAN[0]) / STD[0]
    drawn = torch.cat([loader.crop(torch.arange(10)) for _ in range(50)]).float()
    pixels = torch.cat([images for images, _ in batches])
    assert pixels.shape == (10, 3, 8, 8) and pixels.is_contiguous()
    assert float(pixels[:, 0].max()) <= bright + 1e-5 and float(pixels[:, 0].min()) >= dark - 1e-5
    left = (drawn[:, 0] == 255).any(1).nonzero()[:, 1]
    assert int(left.min()) == 0 and int(left.max()) == 7, "some are flipped, some are not"
    assert float((drawn == 0).float().mean()) > 0.1 * PADDING / 8, "and moved beyond the border"


def test_validation_images_come_in_order_and_unchanged(training):
    from contenders import MEAN, STD, Loader

    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8))
    loader = Loader(images, torch.arange(7), 5, training=False)
    found = torch.cat([some for some, _ in loader])
    back = found * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert torch.equal((back * 255).round().to(torch.uint8).permute(0, 2, 3, 1), images)
    assert len(loader) == 2


def test_sharing_is_told_as_how_much_faster_it_is_and_weights_must_agree(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import sharing

    chosen = options(runs=4, rounds=2, epochs=1)
    text = "\n".join(sharing.lines([(8.0, 2.0), (9.0, 3.0)], chosen))
    assert "| 8.5 | 2.5 | 3.50 (3.00 to 4.00) |" in text and "one CPU core" in text
    monkeypatch.setattr(sharing, "prepare", lambda *_, **__: None)
    monkeypatch.setattr(sharing.os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(sharing, "total", lambda *_, shared: (1.0, [str(shared)]))
    with pytest.raises(SystemExit, match="weights differ"):
        sharing.measure(chosen)


def test_a_vectorised_training_is_that_of_the_loops_up_to_rounding(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import vectorised

    found = vectorised.apart(vectorised.mlp, 2, 2, torch.device("cpu"))
    assert found < 1e-5
    monkeypatch.setattr(vectorised, "MOMENTUM", 0.0)
    images, labels = vectorised.batches(2, 3, torch.device("cpu"))
    together = vectorised.vectorised(
        vectorised.networks(vectorised.mlp, 2, torch.device("cpu")), images, labels
    )
    monkeypatch.setattr(vectorised, "MOMENTUM", 0.9)
    loops = vectorised.networks(vectorised.mlp, 2, torch.device("cpu"))
    vectorised.in_loops(loops, images, labels)
    (name, value), *_ = together.items()
    assert not torch.allclose(value[1], dict(loops[1].named_parameters())[name], rtol=1e-4), (
        "the check can fail"
    )


WRK = """Running 1s test @ http://127.0.0.1:1/predict
  Latency Distribution
     50%    1.10ms
     99%  {tail}
  100 requests in 1.00s, 1.00MB read
{more}Requests/sec:   1234.56
"""


def test_a_load_is_read_and_one_with_failed_requests_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import serving

    for tail, milliseconds in (("812.00us", 0.812), ("3.50ms", 3.5), ("1.20s", 1200.0)):
        assert serving.read_wrk(WRK.format(tail=tail, more=""), "x") == serving.Load(1234.56, milliseconds)
    for more in (
        "  Non-2xx or 3xx responses: 3\n",
        "  Socket errors: connect 0, read 1, write 0, timeout 0\n",
    ):
        with pytest.raises(SystemExit, match="requests failed"):
            serving.read_wrk(WRK.format(tail="1.00ms", more=more), "x")
    with pytest.raises(SystemExit, match="no request"):
        serving.read_wrk("", "x")


def test_ratios_are_those_of_one_round_and_aims_can_be_missed(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import serving

    results = {
        (name, connections): [serving.Load(rate * step, 1.0) for step in (1, 2, 4)]
        for name, rate in ((serving.BARE, 100.0), (serving.ASSAY, 95.0), ("LitServe", 30.0))
        for connections in serving.CONNECTIONS
    }
    assert serving.ratios(results, serving.ASSAY, serving.BARE, 8) == [0.95] * 3
    assert serving.ratios(results, serving.ASSAY, "BentoML", 8) is None
    text = "\n".join(serving.lines("cnn", results, [1000.0]))
    assert (
        "Assay to Starlette + orjson, 8 connections, requests/s: 0.95 (0.95 to 0.95); aim at least 0.9: reached"
        in text
    )
    assert "Assay to LitServe, 8 connections, requests/s: 3.17 (3.17 to 3.17); aim at least 4: missed" in text
    assert "BentoML" not in text


def test_a_server_with_another_network_or_without_a_package_is_not_compared(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import serving
    from serving import servers

    target = serving.Target("x", 1, b"", {})
    monkeypatch.setattr(serving.Target, "ask", lambda _: np.zeros(10, np.float32))
    servers.until_it_answers(target, np.zeros(10, np.float32))
    with pytest.raises(ValueError, match="another network"):
        servers.until_it_answers(target, np.ones(10, np.float32))
    assert servers.peer(None, "litserve") == (None, "name its environment: --peers ENVIRONMENT")
    assert "is no environment" in servers.peer(tmp_path, "litserve")[1]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    assert "cannot import it" in servers.peer(tmp_path, "no_such_server")[1]


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_a_bundle_for_the_comparison_is_whole_and_the_same_network(kind, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import serving

    from assay.release.bundle.read import read
    from assay.release.server.model import load_model

    model = load_model(read(serving.networks.bundle(kind, tmp_path / kind)))
    _, raw, expected = serving.servers.bodies(kind)
    samples = np.frombuffer(raw, "<f4").reshape(1, *serving.networks.KINDS[kind][0])
    assert np.abs(model.scores(samples)[0] - expected).max() < 1e-5
    parameters = sum(p.numel() for p in serving.networks.Served(kind).parameters())
    assert parameters == {"cnn": 94_762, "mlp": 4_810}[kind]
