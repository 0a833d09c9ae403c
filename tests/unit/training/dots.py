"""Crops with dots on them: what the rating network must tell apart, without anatomy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def dots(count: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """One crop (112, 86) as `Example` stores it."""
    return dots_and_places(count, rng)[0]


def dots_and_places(
    count: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint16], NDArray[np.float16]]:
    """One crop (112, 86) and where its dots lie, as `Example` stores both."""
    crop = np.full((112, 86), 0.3) + rng.normal(0, 0.01, (112, 86))
    places = np.zeros(crop.shape, dtype=np.float16)
    for _ in range(count):
        row, column = rng.integers(8, 104), rng.integers(8, 78)
        crop[row - 1 : row + 2, column - 1 : column + 2] = 0.9
        places[row - 1 : row + 2, column - 1 : column + 2] += np.float16(1 / 9)
    return np.rint(crop * 65535).astype(np.uint16), places
