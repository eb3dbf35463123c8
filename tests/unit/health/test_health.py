"""Each check of a node, seen to pass and seen to trip."""

import shutil
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from assay import environment
from assay.health import checks
from assay.health.checks import Finding, Node, all_findings
from assay.health.run import Unhealthy, check_health
from assay.image.lock import ImageLock
from assay.records import Record, now

CPU = torch.device("cpu")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(CPU, tmp_path, None)


def found(check: str, node: Node) -> Finding:
    return next(finding for finding in all_findings(node) if finding.check == check)


def test_this_machine_is_fit_and_says_what_it_could_not_check(tmp_path: Path) -> None:
    findings = check_health("tiny", "cpu", tmp_path)
    assert [finding for finding in findings if finding.ok is False] == []
    assert {finding.check for finding in findings if finding.ok is None} >= {"driver", "NCCL", "packages"}
    record = Record.read(tmp_path / "record.json")
    assert record.stage == "health" and record.outcome == "completed"
    assert record.details["checks"].keys() == {finding.check for finding in findings}


def test_a_gpu_that_pytorch_does_not_see_is_no_cpu_machine(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "GPU", node.results)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    finding = found("GPU", node)
    assert finding.ok is False and "CUDA_VISIBLE_DEVICES=" in finding.advice
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert found("GPU", node).ok is None, "hidden on purpose"


def test_a_device_that_computes_wrongly_is_found(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.Tensor.__matmul__

    def wrong(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        product = right(self, other)
        return product + 0.1 if self.dtype == torch.float32 else product

    monkeypatch.setattr(torch.Tensor, "__matmul__", wrong)
    finding = found("arithmetic", node)
    assert finding.ok is False and "1.0e-01" in finding.found


def test_a_full_disk_is_found(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(2**40, 2**40, 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert found("disk", node).ok is False


def test_a_clock_that_is_off_is_found(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(checks.time, "time", lambda: real() + 30)
    finding = found("clock", node)
    assert finding.ok is False and "-30.0 s" in finding.found
    assert list(node.results.iterdir()) == []


def test_little_memory_is_found(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LEAST_MEMORY", 2**60)
    assert found("memory", node).ok is False


def lock(path: Path, packages: dict[str, str]) -> Path:
    digest = "sha256:" + "a" * 64
    hashes: dict[str, Any] = dict.fromkeys(("recipe_sha256", "sif_sha256", "content_sha256"), "b")
    ImageLock(
        name="x",
        base_name="x",
        base_tag=None,
        base_digest=digest,
        locks_sha256={},
        sif_bytes=1,
        content_files=1,
        python="3",
        packages=packages,
        system_packages={},
        built=now(),
        built_with="x",
        **hashes,
    ).write(path)
    return path


def test_packages_other_than_the_locks_are_found(tmp_path: Path) -> None:
    finding = found("packages", Node(CPU, tmp_path, lock(tmp_path / "lock.json", {"torch": "0.1"})))
    assert finding.ok is False and "is not in the lock" in finding.found


def test_a_failed_check_leaves_no_record_and_names_every_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "IN_IMAGE", tmp_path)
    monkeypatch.setattr("assay.health.run.IN_IMAGE", tmp_path)
    monkeypatch.setattr(checks, "LEAST_DISK", 2**70)
    with pytest.raises(Unhealthy, match=r"FAILED  disk: .* make room there, [\d,.]+ GiB at least"):
        check_health("tiny", "cpu", tmp_path / "health")
    assert not (tmp_path / "health/record.json").exists()


def test_an_arm_that_needs_a_gpu_stops_where_there_is_none(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    with pytest.raises(ValueError, match=r"execution\.device: cuda"):
        check_health("tiny", "cuda", tmp_path)
