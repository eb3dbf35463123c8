"""What a card could compute: known by its whole name, or not at all."""

import re

import pytest

from assay.config.arm import Arm, Execution
from assay.config.schema import Profile
from assay.profiling.exchange import Result, Timings
from assay.profiling.measured import metrics
from assay.profiling.peaks import PEAKS, peak

NAMES = [
    *("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200", "NVIDIA H200 NVL"),
    *(
        "NVIDIA A100-SXM4-80GB",
        "A100-PCIE-40GB",
        "NVIDIA A100 80GB PCIe",
        "NVIDIA A30",
        "NVIDIA A40",
        "NVIDIA A10",
    ),
    *(
        "NVIDIA L4",
        "NVIDIA L40",
        "NVIDIA L40S",
        "NVIDIA GeForce RTX 4090",
        "Tesla V100-SXM2-16GB",
        "Tesla T4",
    ),
]


@pytest.mark.parametrize("name", NAMES)
def test_each_card_is_one_line_of_the_table(name) -> None:
    assert len([one for one in PEAKS if re.fullmatch(one.pattern, name)]) == 1
    value, source = peak(name, Execution(precision="fp16"))
    assert 5e13 < value < 2e15 and source.endswith(": fp16")
    assert peak(name, Execution())[0] < value


def test_the_arithmetic_that_the_arm_asks_for_decides() -> None:
    rates = [
        peak("NVIDIA A100-SXM4-40GB", Execution(precision=precision, tf32=tf32))[0]
        for precision, tf32 in [("fp32", False), ("fp32", True), ("bf16", True), ("fp16", False)]
    ]
    assert rates == [19.5e12, 156e12, 312e12, 312e12]


@pytest.mark.parametrize(
    "name",
    [None, "", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA H100", "NVIDIA L40SX", "NVIDIA A10G", "Some Card"],
)
def test_what_is_not_known_is_not_guessed(name) -> None:
    assert peak(name, Execution(precision="fp16")) is None


def test_a_card_without_bf16_has_no_peak_at_bf16() -> None:
    assert peak("Tesla T4", Execution(precision="bf16")) is None
    assert peak("Tesla V100-SXM2-16GB", Execution(tf32=True)) is None


def visited(**known) -> dict:
    result = Result(inference_ms={4: Timings.of([0.002] * 10)}, training_ms=Timings.of([0.5] * 10), **known)
    arm = Arm.model_validate({"model": {"source": "builtin:mlp"}, "training": {"batch_size": 100}})
    return metrics([result], arm, Profile(batch_sizes=[4]), completed=True)


def test_utilisation_is_needed_over_possible_operations() -> None:
    found = visited(flops=10**9, peak_flops=1e13)
    assert found["flops_utilization"].value == pytest.approx(1e9 * 4 / 0.002 / 1e13)
    assert found["training_flops_utilization"].value == pytest.approx(3 * 1e9 * 100 / 0.5 / 1e13)


@pytest.mark.parametrize("known", [{}, {"flops": 10**9}, {"peak_flops": 1e13}])
def test_utilisation_is_null_where_one_of_them_is_not_known(known) -> None:
    found = visited(**known)
    assert found["flops_utilization"].value is None and found["training_flops_utilization"].value is None
    assert found["reserved_memory_mb"].value is None and found["compile_s"].value is None
