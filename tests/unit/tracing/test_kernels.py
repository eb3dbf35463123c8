"""From trace to table: nesting, the middle step, FLOPs, and kernels of a GPU with the operators that launched them."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from assay.tracing.chrome import STEPS, packed, record, tidied
from assay.tracing.flops import count_flops
from assay.tracing.kernels import TraceError, covered, nested, summarise

torch.set_num_threads(1)
CPU = torch.device("cpu")


def event(name: str, start: float, length: float, category: str = "cpu_op", **fields: Any) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": 1,
        "tid": 1,
        "ts": start,
        "dur": length,
        **fields,
    }


def step(number: int, start: float, length: float) -> dict[str, Any]:
    return event(f"ProfilerStep#{number}", start, length, "user_annotation")


def test_self_time_is_without_what_an_operator_called() -> None:
    outer, inner, deep = event("a", 0, 100), event("b", 10, 50), event("c", 20, 5)
    later, other = event("b", 70, 30), event("a", 15, 40, tid=2)
    found = [(one["name"], own, called) for one, own, called in nested([inner, deep, other, outer, later])]
    expected = [("a", 20, ["b", "b"]), ("a", 40, []), ("b", 30, []), ("b", 45, ["c"]), ("c", 5, [])]
    assert sorted(found) == expected


def test_an_operator_that_begins_where_another_ends_is_not_in_it() -> None:
    found = {one["name"]: own for one, own, _ in nested([event("a", 0, 10), event("b", 10, 10)])}
    assert found == {"a": 10, "b": 10}


def test_overlaps_count_once() -> None:
    assert covered([event("a", 0, 10), event("b", 5, 10), event("c", 6, 1), event("d", 30, 1)]) == 16
    assert covered([]) == 0


def test_the_middle_step_is_told() -> None:
    steps = [step(1, 0, 100), step(2, 1000, 9000), step(3, 20000, 110)]
    inside = [
        event("aten::a", 10, 50),
        event("aten::b", 1010, 8000),
        event("aten::c", 20010, 60),
        event("aten::c", 20080, 5),
    ]
    found = summarise([*steps, *inside], on_gpu=False)
    assert (found.kind, found.steps, found.step_us, found.rest_us) == ("operators", 3, 110, 45)
    (kernel,) = found.kernels
    assert (kernel.name, kernel.calls, kernel.self_us, kernel.share) == ("aten::c", 2, 65, 65 / 110)
    assert kernel.flops is None and kernel.operator is None and kernel.shapes == []


def test_flops_stand_with_the_operator_that_computes_and_graphs_have_one_name() -> None:
    shapes = {"Input Dims": [[2, 3], [3, 4]], "Concrete Inputs": ["", ""]}
    events = [
        step(1, 0, 100),
        event("## Call CompiledFxGraph fgnda57yn2haj ##", 1, 20),
        event("## Call CompiledFxGraph fother ##", 30, 20),
        event("aten::bmm", 60, 20, args={"Input Dims": [[1, 2, 3], [1, 3, 4]], "Concrete Inputs": ["", ""]}),
        event("aten::mm", 61, 10, args=shapes),
    ]
    found = {kernel.name: kernel for kernel in summarise(events, on_gpu=False).kernels}
    assert found["## Call CompiledFxGraph ##"].calls == 2
    assert (found["aten::mm"].flops, found["aten::bmm"].flops) == (48, 0)


def gpu(
    name: str, start: float, length: float, number: int, category: str = "kernel", stream: int = 7
) -> dict[str, Any]:
    return event(
        name, start, length, category, pid=0, tid=stream, args={"External id": number, "stream": stream}
    )


def launching(name: str, number: int, *shapes: list[int]) -> dict[str, Any]:
    return event(name, 1, 5, args={"External id": number, "Input Dims": list(shapes), "Concrete Inputs": []})


def test_kernels_of_a_gpu_are_told_with_what_launched_them() -> None:
    """As PyTorch writes them: `External id` of a kernel is that of the operator. (No GPU is needed to read a trace.)"""
    events = [
        step(1, 0, 100),
        launching("aten::mm", 4, [8, 16], [16, 32]),
        launching("aten::mm", 5, [8, 16], [16, 4]),
        launching("aten::addmm", 6, [4], [8, 16], [16, 4]),
        gpu("gemm", 10, 30, 4),
        gpu("gemm", 40, 10, 5),
        gpu("splitK", 50, 5, 6),
        gpu("reduce", 55, 5, 6),
        gpu("Memcpy HtoD", 20, 40, 99, "gpu_memcpy", stream=9),
        event("cudaLaunchKernel", 5, 60, "cuda_runtime"),
        event("ProfilerStep#1", 10, 50, "gpu_user_annotation"),
    ]
    found = summarise(events, on_gpu=True)
    assert (found.kind, found.step_us, found.rest_us) == ("kernels", 100, 50), "from 10 to 60 it was busy"
    by_name = {kernel.name: kernel for kernel in found.kernels}
    assert list(by_name) == ["Memcpy HtoD", "gemm", "reduce", "splitK"]
    gemm = by_name["gemm"]
    assert (gemm.calls, gemm.self_us, gemm.share, gemm.operator) == (2, 40, 0.4, "aten::mm")
    assert gemm.flops == 2 * 8 * 16 * 32 + 2 * 8 * 16 * 4
    assert gemm.shapes == ["8×16, 16×32", "8×16, 16×4"]
    assert by_name["splitK"].flops is None, "which of an operator's two kernels did the work is not known"
    assert by_name["Memcpy HtoD"].operator is None and by_name["Memcpy HtoD"].flops is None


@pytest.mark.parametrize(
    ("events", "on_gpu", "words"),
    [
        ([], False, "no step"),
        ([step(1, 0, 0)], False, "without a duration"),
        ([step(1, 0, 10)], False, "no operator"),
        ([step(1, 0, 10), event("aten::mm", 1, 2)], True, "no kernel of the GPU"),
    ],
)
def test_a_trace_without_what_was_asked_for_says_so(events: list[Any], on_gpu: bool, words: str) -> None:
    with pytest.raises(TraceError, match=words):
        summarise(events, on_gpu=on_gpu)


def test_flops_are_known_for_products_and_convolutions_alone() -> None:
    assert count_flops("aten::mm", [[2, 3], [3, 4]], ["", ""]) == 2 * 2 * 3 * 4
    assert count_flops("aten::bmm", [[5, 2, 3], [5, 3, 4]], ["", ""]) == 5 * 2 * 2 * 3 * 4
    assert count_flops("aten::relu", [[2, 3]], [""]) is None
    assert count_flops("aten::mm", [], []) is None, "shapes were not recorded"
    assert count_flops("aten::mm", [[2, 3], [4, 4]], ["", ""]) is None, "no product of these is possible"
    assert (
        count_flops("aten::mkldnn_convolution", [[1, 1, 8, 8], [1, 1, 3, 3], []], ["", "", "", "?"]) is None
    )


class Nets(torch.nn.Module):
    """Convolutions of every kind that torchvision's networks have, and products."""

    def __init__(self, groups: bool) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
            torch.nn.Conv2d(8, 8, 5, padding=2, groups=8 if groups else 1),
            torch.nn.Conv2d(8, 12, 3, dilation=2, padding=(2, 1), groups=2 if groups else 1),
            torch.nn.Conv2d(12, 4, 1, bias=False),
            torch.nn.AdaptiveAvgPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(16, 5),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layers(images)
        return torch.bmm(scores[:, None], scores[:, :, None]).flatten(1) + scores


@pytest.mark.parametrize(("training", "groups"), [(False, False), (False, True), (True, False)])
def test_flops_of_a_real_trace_are_those_that_pytorch_counts(training: bool, groups: bool) -> None:
    net, images = Nets(groups), torch.rand(4, 3, 17, 16)

    def call() -> None:
        with torch.set_grad_enabled(training):
            scores = net(images)
            if training:
                scores.square().mean().backward()

    with FlopCounterMode(display=False) as counter:
        call()
    found = summarise(record(call, CPU)["traceEvents"], on_gpu=False)
    assert sum(kernel.flops or 0 for kernel in found.kernels) == counter.get_total_flops()
    assert found.steps == STEPS
    assert sum(kernel.share for kernel in found.kernels) + found.rest_us / found.step_us == pytest.approx(
        1, abs=1e-3
    )
    assert found.kernels == sorted(found.kernels, key=lambda kernel: -kernel.self_us)


def test_the_gradients_of_a_convolution_in_groups_take_what_its_forward_pass_takes_each() -> None:
    shapes = [[4, 8, 9, 8], [4, 8, 9, 8], [8, 1, 5, 5], [], [], [], [], [], [], [], []]
    forward = count_flops(
        "aten::mkldnn_convolution", shapes[1:3], ["", "", "", "[2, 2]", "[1, 1]", "[1, 1]", "8"]
    )
    assert forward == 2 * 4 * 8 * 9 * 8 * 5 * 5
    for asked, times in (("[True, True, False]", 2), ("[False, True, True]", 1)):
        concrete = ["", "", "", "[8]", "[1, 1]", "[2, 2]", "[1, 1]", "False", "[0, 0]", "8", asked]
        assert count_flops("aten::convolution_backward", shapes, concrete) == times * forward


def test_a_slow_operator_comes_first() -> None:
    small, large = torch.rand(8, 8), torch.rand(400, 400)
    found = summarise(record(lambda: (small.add(1), large @ large), CPU)["traceEvents"], on_gpu=False)
    assert found.kernels[0].name == "aten::mm"
    assert found.kernels[0].shapes == ["400×400, 400×400"]
    assert found.kernels[0].flops == 2 * 400**3


def test_what_the_profiler_writes_becomes_json_that_any_reader_takes() -> None:
    text = (
        '{"traceName": "/tmp/x", "traceEvents": ['
        '{"ph": "X", "name": "a\tb", "cat": "cpu_op", "pid": 1, "tid": 2, "ts": 5, "dur": 1, "args": {"x": Infinity}},'
        '{"ph": "X", "name": "backwards", "pid": 1, "tid": 2, "ts": 5, "dur": -1},'
        '{"ph": "X", "name": "never", "pid": 1, "tid": 2, "ts": NaN, "dur": 1},'
        '{"ph": "M", "name": "thread_name", "pid": 9, "tid": 9, "args": {"name": "other"}}]}'
    )
    found = tidied(text)
    assert "traceName" not in found
    assert [one["name"] for one in found["traceEvents"]] == ["a\tb", "thread_name", "thread_name"]
    assert found["traceEvents"][-1] | {"ts": 0} == {
        "ph": "M", "name": "thread_name", "pid": 1, "tid": 2, "ts": 0, "args": {"name": "2"},
    }  # fmt: skip
    assert packed(found) == packed(tidied(text))
    for damaged in ("", "[]", '{"traceEvents": [', '{"traceEvents": [{}]}'):
        with pytest.raises(TraceError, match="cannot be read"):
            tidied(damaged)
