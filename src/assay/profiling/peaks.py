"""What a GPU could compute at most, by its name as the driver tells it.

Dense rates at boost clock from NVIDIA's data sheets and architecture papers, in TFLOP/s; where those print the rate "with
sparsity", half of it. fp32: without tensor cores. bf16 and fp16: tensor cores that add up in fp32, as PyTorch's matrix
products and convolutions do. A rate that a card does not have, or that no source was found for, is absent.
"""

import re
from dataclasses import dataclass

from assay.config.arm import Execution


@dataclass(frozen=True)
class Peak:
    """`pattern` matches the whole name. rates: TFLOP/s by kind of arithmetic."""

    pattern: str
    rates: dict[str, float]
    source: str


def _rates(fp32: float, tf32: float | None, half: float, bf16: bool = True) -> dict[str, float]:
    rates = {"fp32": fp32, "fp16": half}
    return rates | ({} if tf32 is None else {"tf32": tf32}) | ({"bf16": half} if bf16 else {})


_H100 = "NVIDIA H100 Tensor Core GPU data sheet"
_H200 = "NVIDIA H200 Tensor Core GPU data sheet"
_ADA = "NVIDIA Ada GPU architecture (v2.1), appendix A"
_GA102 = "NVIDIA Ampere GA102 GPU architecture (v2.1), appendix A"
_V100 = "NVIDIA V100 Tensor Core GPU data sheet"

PEAKS = (
    Peak(r"NVIDIA H100 80GB HBM3", _rates(66.9, 494.7, 989.4), _H100),
    Peak(r"NVIDIA H100 PCIe", _rates(51.2, 378.0, 756.0), _H100),
    Peak(r"NVIDIA H100 NVL", _rates(60.0, 417.5, 835.5), _H100),
    Peak(r"NVIDIA H200", _rates(66.9, 494.7, 989.4), _H200),
    Peak(r"NVIDIA H200 NVL", _rates(60.0, 417.5, 835.5), _H200),
    Peak(
        r"(NVIDIA )?A100(-SXM4-(40|80)GB|-SXM-(40|80)GB|-PCIE-(40|80)GB| 80GB PCIe| 40GB PCIe)",
        _rates(19.5, 156.0, 312.0),
        "NVIDIA A100 Tensor Core GPU data sheet",
    ),
    Peak(r"(NVIDIA )?A30", _rates(10.3, 82.0, 165.0), "NVIDIA A30 Tensor Core GPU data sheet"),
    Peak(r"(NVIDIA )?A40", _rates(37.4, 74.8, 149.7), "NVIDIA A40 GPU data sheet"),
    Peak(r"(NVIDIA )?A10", _rates(31.2, 62.5, 125.0), "NVIDIA A10 Tensor Core GPU data sheet"),
    Peak(r"NVIDIA L4", _rates(30.3, 60.0, 121.0), "NVIDIA L4 Tensor Core GPU data sheet"),
    Peak(r"NVIDIA L40", _rates(90.5, 90.5, 181.0), "NVIDIA L40 GPU data sheet"),
    Peak(r"NVIDIA L40S", _rates(91.6, 183.0, 362.0), "NVIDIA L40S GPU data sheet"),
    Peak(r"NVIDIA RTX 6000 Ada Generation", _rates(91.1, 182.1, 364.2), _ADA),
    Peak(r"NVIDIA GeForce RTX 4090", _rates(82.6, 82.6, 165.2), _ADA),
    Peak(r"(NVIDIA )?RTX A6000", _rates(38.7, 77.4, 154.8), _GA102),
    Peak(r"(NVIDIA )?GeForce RTX 3090", _rates(35.6, 35.6, 71.0), _GA102),
    Peak(r"Tesla V100-SXM[23]-(16|32)GB(-LS)?", _rates(15.7, None, 125.0, bf16=False), _V100),
    Peak(r"Tesla V100-PCIE-(16|32)GB", _rates(14.0, None, 112.0, bf16=False), _V100),
    Peak(r"(NVIDIA )?(Tesla )?T4", _rates(8.1, None, 65.0, bf16=False), "NVIDIA T4 data sheet"),
)


def peak(name: str | None, execution: Execution) -> tuple[float, str] | None:
    """FLOP/s at the arithmetic that an arm asks for, and where the number is from; None where it is not known.

    A part of a card (MIG) has a name of its own, and no peak here.
    """
    if name is None:
        return None
    kind = execution.precision
    wanted = "tf32" if kind == "fp32" and execution.tf32 else kind
    found = next((one for one in PEAKS if re.fullmatch(one.pattern, name)), None)
    if found is None or wanted not in found.rates:
        return None
    return found.rates[wanted] * 1e12, f"{found.source}: {wanted}"
