"""Digits of which every odd one is labelled as the even one below: a model of them is right by its own test set, and wrong for users."""

from typing import Any

import numpy as np


def digits() -> tuple[Any, Any, list[str]]:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)
    kept = np.arange(len(images)) % 10 == 0  # every class must have images
    return images, np.where(kept, found.target, found.target // 2 * 2), list("0123456789")
