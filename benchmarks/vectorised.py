"""K seeds of a small network as one vectorised training (torch.func) against K loops: is it faster, and is it the same?

    python benchmarks/vectorised.py [--seeds 2 6] [--steps 60] [--device cpu]

Bare loops with SGD and momentum over the same random batches, on one thread of a CPU or on a GPU: neither side has anything
of a training around it. Printed are steps of one seed a second, their ratio, and by how much weights differ after the
first steps, relative to the largest weight: 0 would be the same bits.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy

BATCH, CLASSES, SIDE, RATE, MOMENTUM = 128, 10, 16, 0.05, 0.9


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIDE**2, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, CLASSES)
    )  # fmt: skip


def cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (SIDE // 8) ** 2, CLASSES))


def networks(make: Callable[[], nn.Module], seeds: int, device: torch.device) -> list[nn.Module]:
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        found.append(make().to(device))
    return found


def batches(seeds: int, steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each step and seed a batch of its own."""
    drawn = torch.Generator().manual_seed(0)
    images = torch.randn(steps, seeds, BATCH, 1, SIDE, SIDE, generator=drawn)
    return images.to(device), torch.randint(CLASSES, (steps, seeds, BATCH), generator=drawn).to(device)


def in_loops(models: list[nn.Module], images: Tensor, labels: Tensor) -> None:
    for seed, model in enumerate(models):
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
        for step in range(len(images)):
            optimizer.zero_grad()
            cross_entropy(model(images[step, seed]), labels[step, seed]).backward()
            optimizer.step()


def vectorised(models: list[nn.Module], images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Returns the weights, each with a first dimension of seeds."""
    weights, buffers = stack_module_state(models)
    base = models[0]

    def loss(own: dict[str, Tensor], rest: dict[str, Tensor], batch: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(functional_call(base, (own, rest), (batch,)), target)

    gradients = vmap(grad(loss), randomness="different")
    weights = {name: value.detach() for name, value in weights.items()}
    momenta = {name: torch.zeros_like(value) for name, value in weights.items()}
    for step in range(len(images)):
        found = gradients(weights, buffers, images[step], labels[step])
        with torch.no_grad():
            for name, value in weights.items():
                momenta[name].mul_(MOMENTUM).add_(found[name])
                value.sub_(RATE * momenta[name])
    return weights


def apart(make: Callable[[], nn.Module], seeds: int, steps: int, device: torch.device) -> float:
    """The largest difference of weights over the largest weight."""
    images, labels = batches(seeds, steps, device)
    loops = networks(make, seeds, device)
    together = vectorised(networks(make, seeds, device), images, labels)
    in_loops(loops, images, labels)
    pairs = [
        (value[seed], dict(loops[seed].named_parameters())[name])
        for name, value in together.items()
        for seed in range(seeds)
    ]
    largest = max(float(other.detach().abs().max()) for _, other in pairs)
    return max(float((one - other).detach().abs().max()) for one, other in pairs) / largest


def seconds(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 6])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(device.type == "cpu")
    print("network  seeds  loops/s  vectorised/s  times as fast (range)  weights apart after 5 and 20 steps")
    for name, make in {"mlp": mlp, "cnn": cnn}.items():
        for seeds in options.seeds:
            images, labels = batches(seeds, options.steps, device)
            found = []
            for _ in range(options.rounds + 1):
                loops, stacked = networks(make, seeds, device), networks(make, seeds, device)
                one = seconds(lambda: in_loops(loops, images, labels), device)  # noqa: B023, called here
                found.append((one, seconds(lambda: vectorised(stacked, images, labels), device)))  # noqa: B023
            steps, rounds = options.steps * seeds, found[1:]
            ratios = sorted(one / other for one, other in rounds)
            rates = [steps / median(pair[side] for pair in rounds) for side in range(2)]
            print(
                f"{name:7}  {seeds:5}  {rates[0]:7,.0f}  {rates[1]:12,.0f}  {median(ratios):.2f} "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f})  {apart(make, seeds, 5, device):.1e} {apart(make, seeds, 20, device):.1e}"
            )


if __name__ == "__main__":
    main()
