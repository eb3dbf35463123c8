"""Small networks for small images: from 8×8×1 to about 64×64×3."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from assay.models.errors import ModelError, suggestion
from assay.models.inputs import Inputs


class Options(BaseModel):
    """Options of a built-in model, as the experiment file gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of features dropped in training.")


class MLPOptions(Options):
    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        default=[256, 128], description="Units of each hidden layer; empty: softmax regression."
    )
    norm: bool = Field(default=False, description="Batch norm before each activation.")


class CNNOptions(Options):
    width: int = Field(
        default=32, ge=1, description="Channels of the first stage; each next one doubles them."
    )
    depth: int = Field(default=3, ge=1, le=6, description="Stages, each at half the size of the one before.")
    norm: bool = Field(default=True, description="Batch norm before each activation.")


class ResNetOptions(Options):
    width: int = Field(
        default=16, ge=1, description="Channels of the first stage; each next one doubles them."
    )
    blocks: int = Field(default=1, ge=1, le=32, description="Residual blocks in each of the three stages.")


def mlp(options: MLPOptions, inputs: Inputs) -> nn.Module:
    """Fully connected layers with ReLU on the flattened image."""
    channels, height, width = inputs.shape
    features = [channels * height * width, *options.hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(features):
        norm = [nn.BatchNorm1d(after)] if options.norm else []
        layers += [nn.Linear(before, after, bias=not options.norm), *norm, nn.ReLU(inplace=True)]
        layers += _dropout(options)
    return nn.Sequential(*layers, nn.Linear(features[-1], inputs.classes))


def cnn(options: CNNOptions, inputs: Inputs) -> nn.Module:
    """Stages of a 3×3 convolution with ReLU, halved by maximum between them, then global average pooling."""
    side = min(inputs.size)
    if side < 2 ** (options.depth - 1):
        fits = side.bit_length()
        raise ModelError(
            f"model.options.depth: {options.depth} stages are too many for images of {inputs}; "
            f"write depth: {fits} or less"
        )
    widths = [inputs.channels, *(options.width * 2**stage for stage in range(options.depth))]
    layers: list[nn.Module] = []
    for stage, (before, after) in enumerate(pairwise(widths)):
        layers += [nn.MaxPool2d(2)] if stage else []
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=not options.norm)]
        layers += [nn.BatchNorm2d(after)] if options.norm else []
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *_head(options, widths[-1], inputs.classes))


def resnet_small(options: ResNetOptions, inputs: Inputs) -> nn.Module:
    """The residual network for small images of He et al. 2016 (arXiv 1512.03385), section 4.2.

    Three stages of basic blocks after a 3×3 stem without pooling; `blocks: 3` is their ResNet-20. Shortcuts
    that change shape are 1×1 convolutions (their option B).
    """
    widths = [options.width * 2**stage for stage in range(3)]
    layers: list[nn.Module] = [*_convolution(inputs.channels, widths[0], 3), nn.ReLU(inplace=True)]
    before = widths[0]
    for stage, width in enumerate(widths):
        for block in range(options.blocks):
            layers.append(ResidualBlock(before, width, stride=2 if stage and not block else 1))
            before = width
    model = nn.Sequential(*layers, *_head(options, before, inputs.classes))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut: [B, before, H, W] → [B, after, H/stride, W/stride]."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_convolution(before, after, 3, stride=stride),
            nn.ReLU(inplace=True),
            *_convolution(after, after, 3),
        )
        same = before == after and stride == 1
        self.shortcut = nn.Sequential(*([] if same else _convolution(before, after, 1, stride=stride)))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        activated: Tensor = self.activation(self.residual(images) + self.shortcut(images))
        return activated


def _convolution(before: int, after: int, kernel: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(after)]


def _head(options: Options, features: int, classes: int) -> list[nn.Module]:
    pooling = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return [*pooling, *_dropout(options), nn.Linear(features, classes)]


def _dropout(options: Options) -> list[nn.Module]:
    return [nn.Dropout(options.dropout)] if options.dropout else []


class Builtin(NamedTuple):
    options: type[Options]
    build: Callable[[Any, Inputs], nn.Module]


BUILTINS: dict[str, Builtin] = {
    "mlp": Builtin(MLPOptions, mlp),
    "cnn": Builtin(CNNOptions, cnn),
    "resnet-small": Builtin(ResNetOptions, resnet_small),
}


def build_builtin(name: str, options: Mapping[str, Any], inputs: Inputs) -> nn.Module:
    """Raises: ModelError naming the model or the option, and what is known in its place."""
    if name not in BUILTINS:
        known = ", ".join(BUILTINS)
        raise ModelError(f"model.source: no 'builtin:{name}' (there are {known}){suggestion(name, BUILTINS)}")
    builtin = BUILTINS[name]
    try:
        checked = builtin.options.model_validate(dict(options))
    except ValidationError as error:
        raise ModelError(_explained(error, name, builtin.options)) from None
    return builtin.build(checked, inputs)


def _explained(error: ValidationError, name: str, options: type[Options]) -> str:
    """All errors, a line each."""
    lines = []
    for problem in error.errors():
        option, *rest = problem["loc"]
        key = ".".join(["model.options", str(option), *map(str, rest)])
        if problem["type"] == "extra_forbidden":
            known = options.model_fields
            near = suggestion(str(option), known)
            lines.append(f"{key}: unknown to builtin:{name}, which takes {', '.join(known)}{near}")
        else:
            default = options.model_fields[str(option)].default
            message = problem["msg"].removeprefix("Input ")
            lines.append(f"{key}: {message}, not {problem['input']!r}; the default is {default!r}")
    return "\n".join(lines)
