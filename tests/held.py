"""The built-in network, in a training that a test may hold where it is.

ASSAY_TEST_HOLD names a file. As long as it is there, no step begins from the moment on that it tells: so many calls, or
the existence of another file. Beside it lies FILE.held once that is so. What a test does to a training on its way it does
while it is held: nothing else makes sure that it has not ended before.
"""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from torch import nn

from assay.models.builtin import CNNOptions, cnn
from assay.models.inputs import Inputs

VARIABLE = "ASSAY_TEST_HOLD"


def net(num_classes: int, in_channels: int, image_size: int, width: int, dropout: float) -> nn.Module:
    inputs = Inputs(channels=in_channels, size=(image_size, image_size), classes=num_classes)
    model = cnn(CNNOptions(width=width, dropout=dropout), inputs)
    if hold := os.environ.get(VARIABLE):
        model.register_forward_pre_hook(_Waiting(Path(hold)))
    return model


class Held:
    """A training that goes no further. since: from this file's existence on, or from so many batches on."""

    def __init__(self, hold: Path, since: Path | int) -> None:
        hold.parent.mkdir(parents=True, exist_ok=True)
        hold.write_text(str(since))
        self._hold, self._held = hold, hold.with_name(f"{hold.name}.held")
        self._held.unlink(missing_ok=True)
        self.variables = {VARIABLE: str(hold)}

    def wait(self, running: "subprocess.Popen[str]") -> None:
        """Until it has come there."""
        wait_for(self._held.exists, running)

    def release(self) -> None:
        self._hold.unlink()


def wait_for(condition: Callable[[], bool], running: "subprocess.Popen[str]", seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None and time.monotonic() < end, running.poll()
        time.sleep(0.01)


class _Waiting:
    def __init__(self, hold: Path) -> None:
        self.hold, self.calls = hold, 0

    def __call__(self, module: nn.Module, _: object) -> None:
        self.calls += module.training
        while module.training and self._is_held():
            self.hold.with_name(f"{self.hold.name}.held").touch()
            time.sleep(0.01)

    def _is_held(self) -> bool:
        try:
            since = self.hold.read_text()
        except FileNotFoundError:
            return False
        return self.calls >= int(since) if since.isdigit() else Path(since).exists()
