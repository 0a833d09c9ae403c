"""Artificial crops with dots that resemble EPVS, without anatomy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def dots(count: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return one crop (112, 86) in the format of `Example.crops`."""
    crop = np.full((112, 86), 0.3) + rng.normal(0, 0.01, (112, 86))
    for _ in range(count):
        row, column = rng.integers(8, 104), rng.integers(8, 78)
        crop[row - 1 : row + 2, column - 1 : column + 2] = 0.9
    return np.rint(crop * 65535).astype(np.uint16)
