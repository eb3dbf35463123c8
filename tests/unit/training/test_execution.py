"""How the arithmetic is done: honoured, or refused with a reason."""

import resource

import pytest
import torch
from torch import nn

from assay.config.arm import Execution
from assay.isolation.gpu_places import Shared
from assay.isolation.places import Place
from assay.training.execution import CONTEXT_MB, apply, autocast, compiled, keep_memory, share_of_memory
from assay.training.graphs import Recorded, _refusal, _undisturbed
from assay.training.outcomes import out_of_memory

CPU = torch.device("cpu")
needs_no_gpu = pytest.mark.skipif(
    torch.cuda.is_available(), reason="there is a GPU, which takes these settings"
)


@needs_no_gpu
@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("key", ["cuda_graphs", "tf32"])
def test_what_a_cpu_cannot_do_is_refused_and_not_ignored(key, device) -> None:
    """An arm that asked for it would be measured without, under its name."""
    with pytest.raises(ValueError, match=rf"execution\.{key}: .* runs on the CPU; write `{key}: false`"):
        apply(Execution.model_validate({"device": device, key: True}))


@pytest.mark.parametrize(("total", "runs"), [(81_559, 2), (81_559, 8), (8192, 4), (8192, 32)])
def test_the_shares_of_a_gpu_and_what_processes_take_beside_them_fit_into_it(total, runs) -> None:
    share = share_of_memory(total, runs) * total
    assert 0 < share < total / runs
    room = total - runs * share
    assert room >= runs * CONTEXT_MB or share == total / runs / 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU whose memory could be shared out")
def test_what_is_above_its_share_of_a_gpu_is_refused_to_a_run_alone(monkeypatch) -> None:
    told = {}
    Place(shared=Shared(None, 0, 8, 0)).enter(told)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    device = apply(Execution(device="cuda"))
    total = torch.cuda.get_device_properties(device).total_memory
    try:
        with pytest.raises(RuntimeError) as refused:
            torch.empty(total // 8, dtype=torch.uint8, device=device)
        assert out_of_memory(refused.value)
        assert torch.empty(total // 16 - CONTEXT_MB * 2**20, dtype=torch.uint8, device=device).is_cuda
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_is_that_of_the_products(precision) -> None:
    settings = Execution(precision=precision)
    with autocast(settings, CPU):
        scores = nn.Linear(4, 2)(torch.ones(1, 4))
    assert scores.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def test_casts_are_not_kept_from_one_step_to_the_next_where_kernels_are_recorded() -> None:
    for graphs in (False, True):
        with autocast(Execution(precision="bf16", cuda_graphs=graphs), CPU):
            assert torch.is_autocast_cache_enabled() != graphs


def test_a_recorded_model_shares_weights_and_mode() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    recorded = compiled(model, Execution(cuda_graphs=True), torch.device("cuda", 0))
    assert isinstance(recorded, Recorded)
    assert {id(one) for one in recorded.parameters()} == {id(one) for one in model.parameters()}
    recorded.eval()
    assert not model.training
    assert compiled(model, Execution(), CPU) is model


def test_recording_leaves_the_statistics_of_batch_norm_as_they_were_and_where_they_were() -> None:
    """Its warm-up passes would otherwise count as steps of the training."""
    norm = nn.BatchNorm1d(3)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    places = [buffer.data_ptr() for buffer in norm.buffers()]
    with _undisturbed(norm):
        norm(torch.randn(8, 3))
        assert int(norm.num_batches_tracked) == 1
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert [buffer.data_ptr() for buffer in norm.buffers()] == places


def test_a_model_that_cannot_be_recorded_is_refused_by_name_of_the_setting() -> None:
    with (
        pytest.raises(ValueError, match=r"execution\.cuda_graphs: .*not permitted.*`cuda_graphs: false`"),
        _refusal(),
    ):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
    with pytest.raises(torch.OutOfMemoryError), _refusal():
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_step_finds_the_memory_that_the_one_before_it_freed() -> None:
    """The kernel would clear every page of it again: the sum of what is freed is far above what glibc keeps."""

    def faults_of_a_step() -> int:
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        tensors = [torch.zeros(4 * 2**20) for _ in range(16)]
        assert len(tensors) == 16
        return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

    keep_memory(CPU)
    pages = 16 * 16 * 2**20 // resource.getpagesize()
    faults = [faults_of_a_step() for _ in range(10)]  # blocks find their places in the first few
    assert min(faults[5:]) < pages / 100, faults
