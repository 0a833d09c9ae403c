"""Baseline of the rating paper: a random forest on Haar-like features (section 3, after [25]).

The paper gives no parameters. There are two variants: Haar-like features at random places of the
crop, as is usual for detection; and a stronger one that is not in the paper, in which each feature
is computed at every place and the forest receives the distribution of its responses. The latter
suits the task better, because EPVS are counted and not located.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from skimage.feature import haar_like_feature, haar_like_feature_coord
from skimage.transform import integral_image
from sklearn.ensemble import RandomForestClassifier

FloatArray = NDArray[np.float32]

TYPES: Final = ("type-2-x", "type-2-y", "type-3-x", "type-3-y", "type-4")
WINDOWS: Final = (4, 6, 8, 12, 16)
"""Edge lengths (pixels of 0.465 mm) of the features; EPVS are 2 to 6 pixels wide."""
PLACES: Final = 2000
TREES: Final = 500
QUANTILES: Final = (0.5, 0.9, 0.95, 0.98, 0.99, 0.995)


def features_at_places(images: FloatArray, seed: int = 0) -> FloatArray:
    """Compute Haar-like features at random places, the same in every image.

    Parameters
    ----------
    images : ndarray, shape (n, rows, columns)
    seed : int

    Returns
    -------
    ndarray, shape (n, PLACES)
    """
    rng = np.random.default_rng(seed)
    _, rows, columns = images.shape
    coordinates, types = np.empty(PLACES, dtype=object), np.empty(PLACES, dtype=object)
    catalogue = {
        (window, kind): haar_like_feature_coord(window, window, kind)[0]
        for window in WINDOWS
        for kind in TYPES
    }
    for place in range(PLACES):
        window, kind = int(rng.choice(WINDOWS)), str(rng.choice(TYPES))
        shape = catalogue[window, kind]
        corner = rng.integers((rows - window, columns - window))
        chosen = shape[rng.integers(len(shape))]
        coordinates[place] = [[tuple(np.add(p, corner)) for p in box] for box in chosen]
        types[place] = kind
    return np.stack(
        [
            haar_like_feature(
                integral_image(image), 0, 0, columns, rows, types, feature_coord=coordinates
            )
            for image in images
        ]
    ).astype(np.float32)


def features_over_all_places(images: FloatArray) -> FloatArray:
    """Compute the distribution of the responses of Haar-like features over each image.

    Parameters
    ----------
    images : ndarray, shape (n, rows, columns)

    Returns
    -------
    ndarray, shape (n, windows · types · statistics)
        Standard deviation and quantiles of the absolute response.
    """
    columns = []
    for window in WINDOWS:
        for kind in TYPES:
            kernel = _kernel(window, kind)
            responses = np.abs(fftconvolve(images, kernel[None], mode="valid", axes=(1, 2)))
            flat = responses.reshape(len(images), -1)
            columns += [flat.std(axis=1), *np.quantile(flat, QUANTILES, axis=1)]
    return np.stack(columns, axis=1).astype(np.float32)


def _kernel(window: int, kind: str) -> FloatArray:
    """Return the largest feature of a kind in a window: mean of bright minus mean of dark parts."""
    shapes = haar_like_feature_coord(window, window, kind)[0]
    largest = max(shapes, key=lambda boxes: sum(_area(box) for box in boxes))
    kernel = np.zeros((window, window), dtype=np.float32)
    for number, ((top, left), (bottom, right)) in enumerate(largest):
        kernel[top : bottom + 1, left : right + 1] = -1 if number % 2 else 1
    for sign in (1, -1):
        kernel[kernel * sign > 0] /= max((kernel * sign > 0).sum(), 1)
    return kernel


def _area(box: tuple[tuple[int, int], tuple[int, int]]) -> int:
    (top, left), (bottom, right) = box
    return (bottom - top + 1) * (right - left + 1)


def forest_probabilities(
    features: FloatArray, ratings: NDArray[np.int64], train: NDArray[np.bool_], seed: int
) -> FloatArray:
    """Train on the selected images and predict probabilities (n, 5) for all of them."""
    forest = RandomForestClassifier(TREES, random_state=seed, n_jobs=1)
    forest.fit(features[train], ratings[train])
    probabilities = np.zeros((len(features), 5), dtype=np.float32)
    probabilities[:, forest.classes_] = forest.predict_proba(features)
    return probabilities
