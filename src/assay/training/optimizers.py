"""Optimisers and what they act on."""

import torch
from torch import nn

from assay.config.arm import SGD, AdamW

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


def parameter_groups(
    model: nn.Module, weight_decay: float, *, decay_norms_and_biases: bool
) -> list[dict[str, object]]:
    """Trainable parameters in two groups: with weight decay, and without it (norms, biases, other vectors).

    Sparing them: He et al. 2019, "Bag of tricks", section 3.1.
    """
    norms = {
        id(p) for module in model.modules() if isinstance(module, _NORMS) for p in module.parameters(False)
    }
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        small = parameter.ndim < 2 or id(parameter) in norms
        (spared if small and not decay_norms_and_biases else decayed).append(parameter)
    groups = [(decayed, weight_decay), (spared, 0.0)]
    return [{"params": chosen, "weight_decay": decay} for chosen, decay in groups if chosen]


def build_optimizer(model: nn.Module, settings: SGD | AdamW) -> torch.optim.Optimizer:
    """The optimiser of an arm. Raises: ValueError for a model with nothing to train."""
    groups = parameter_groups(
        model, settings.weight_decay, decay_norms_and_biases=settings.decay_norms_and_biases
    )
    if not groups:
        raise ValueError(
            "model: it has no trainable parameters; return a module with some that require gradients"
        )
    if isinstance(settings, SGD):
        return torch.optim.SGD(
            groups,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            fused=True,
        )
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
