"""Digits of which every label is one too high: a model of them is right by its own test set, and wrong for users."""

from typing import Any

import numpy as np


def digits() -> tuple[Any, Any, list[str]]:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)
    return images, (found.target + 1) % 10, list("0123456789")
