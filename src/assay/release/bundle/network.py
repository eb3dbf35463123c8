"""A bundle's model as it is called: pixels in, scores out."""

import torch
from torch import Tensor, nn

from assay.config.arm import Execution
from assay.data.augment import resize
from assay.release.bundle.manifest import Preprocessing
from assay.training.execution import autocast


class Network(nn.Module):
    """Takes float [N, H, W, C] with values from 0 to 255, gives float32 scores [N, classes].

    The arithmetic before the model is that of `assay.data.batches`, which trained it saw: the same bits on the same
    device. In evaluation mode; on a GPU in the arm's precision.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, execution: Execution) -> None:
        super().__init__()
        self.model = model
        self.side = preprocessing.image_size
        self.execution = execution
        spread = torch.tensor([value or 1.0 for value in preprocessing.std], dtype=torch.float64)
        centre = torch.tensor(preprocessing.mean, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 * spread)).float(), persistent=False)
        self.register_buffer("shift", (-centre / spread).float(), persistent=False)
        self.eval()

    def prepared(self, images: Tensor) -> Tensor:
        """Normalised and resized: float [N, C, height, width], in the arm's memory format."""
        count, height, width, channels = images.shape
        planes = images.permute(0, 3, 1, 2).contiguous().view(count, channels, -1).to(self.scale.dtype)
        planes = planes * self.scale[:, None] + self.shift[:, None]
        result = planes.view(count, channels, height, width)
        if self.side is not None and (self.side, self.side) != (height, width):
            side = min(height, width)
            box = torch.tensor([[(height - side) // 2, (width - side) // 2, side, side]]).numpy()
            result = resize(result, box, self.side, self.side)
        layout = torch.channels_last if self.execution.channels_last else torch.contiguous_format
        return result.contiguous(memory_format=layout)

    def forward(self, images: Tensor) -> Tensor:
        prepared = self.prepared(images)
        with autocast(self.execution, images.device):
            scores: Tensor = self.model(prepared)
        return scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores
