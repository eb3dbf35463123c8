"""What the processes of a run share, as far as one process can tell: `tests/faults` has two of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from assay.training.batch_norm import over_all_ranks
from assay.training.checkpoint import Checkpoints, random_state
from assay.training.ranks import ALONE


@pytest.fixture
def group() -> Iterator[None]:
    """Of this process alone: its sums are itself, but go the way of all."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Activated(nn.BatchNorm2d):
    """As timm derives it: the activation inside."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(super().forward(images))


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(3),
        Activated(3),
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.BatchNorm1d(3),
    ],
    ids=["plain", "derived", "cumulative", "not affine", "untracked", "one axis"],
)
def test_batch_norm_over_all_ranks_is_pytorchs(group: None, norm: nn.Module) -> None:
    torch.manual_seed(0)
    shape = (6, 3) if isinstance(norm, nn.BatchNorm1d) else (6, 3, 4, 5)
    mine = type(norm)(
        3, momentum=norm.momentum, affine=norm.affine, track_running_stats=norm.track_running_stats
    )  # type: ignore[operator]
    mine.load_state_dict(norm.state_dict())
    assert over_all_ranks(nn.Sequential(mine)) == 1
    for _ in range(3):
        images = torch.randn(shape) * 3 + 5
        factors = torch.randn(shape)
        theirs, ours = images.clone().requires_grad_(), images.clone().requires_grad_()
        (norm(theirs) * factors).sum().backward()
        (mine(ours) * factors).sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    for after, before in zip(mine.parameters(), norm.parameters(), strict=True):
        torch.testing.assert_close(after.grad, before.grad, rtol=1e-4, atol=1e-4)
    assert mine.state_dict().keys() == norm.state_dict().keys(), "weights keep their names"
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.eval()(images), norm.eval()(images))


def test_one_process_talks_to_nobody() -> None:
    model = nn.Linear(2, 2)
    assert not dist.is_initialized()
    assert ALONE.sum(1.5, 2) == [1.5, 2] and ALONE.most(3) == [3]
    assert ALONE.gather("x") == ["x"] and ALONE.from_first("x") == "x"
    assert ALONE.parallel(model, torch.device("cpu")) is model
    ALONE.share_buffers(model)
    ALONE.wait()


def test_a_checkpoint_of_another_number_of_devices_is_refused_and_kept(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "same", (2, 1)).save({"ranks": [{"random": random_state(torch.device("cpu"))}]})
    assert Checkpoints(tmp_path, "same", (2, 1)).load() is not None
    for shape in ((1, 1), (4, 1), (1, 2)):
        with pytest.raises(
            ValueError, match=r"write `execution: \{devices: 2, nodes: 1\}` to go on, or remove"
        ):
            Checkpoints(tmp_path, "same", shape).load()
    assert Checkpoints(tmp_path, "same", (2, 1)).load() is not None
