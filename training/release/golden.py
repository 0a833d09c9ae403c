"""Golden predictions of a version: ``golden.npz``, which workers repeat before they grade."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.cohorts.examples import Example, crops_as_input, rating_of, volume_as_input
from training.release.evaluate import session
from training.storage import write_arrays

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def golden_crops(model: Path, examples: list[Example], enhancement: str) -> NDArray[np.uint8]:
    """Choose the two crops of every rating whose predictions are least sensitive to rounding."""
    crops = quantise(crops_as_input(np.concatenate([e.crops for e in examples]), enhancement))
    ratings = rating_of(np.concatenate([e.counts for e in examples]))
    (probabilities,) = session(model).run(None, {"crops": dequantise(crops)})
    ordered = np.sort(probabilities, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    chosen = [
        np.flatnonzero(ratings == rating)[np.argsort(-margin[ratings == rating])[:2]]
        for rating in range(5)
    ]
    return crops[np.concatenate(chosen)]


def golden_volume(model: Path, examples: list[Example]) -> NDArray[np.uint8]:
    """Choose a severe volume whose probability is not saturated, so that any fault changes it."""
    runtime = session(model)
    best, distance = examples[0].volume, np.inf
    for example in examples[:40]:
        volume = volume_as_input(example.volume[None])
        probability = runtime.run(["probability"], {"volume": volume})[0].item()
        if abs(probability - 0.8) < distance:
            best, distance = example.volume, abs(probability - 0.8)
    return best[None, None]


def extreme_inputs(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return inputs at the limits of what a network may be given.

    Parameters
    ----------
    stored : ndarray of uint8, shape (n, 1, …)
        Golden inputs, as returned by `quantise`.

    Returns
    -------
    ndarray of uint8, shape (4, 1, …)
        All 0; all 1; the first golden input saturated, with every voxel 0 or 1; one bright voxel
        in the middle.
    """
    zero = np.zeros_like(stored[0])
    saturated = np.where(stored[0] > stored[0].mean(), np.uint8(255), np.uint8(0))
    bright = zero.copy()
    bright[tuple(size // 2 for size in bright.shape)] = 255
    return np.stack([zero, np.full_like(zero, 255), saturated, bright])


def quantise(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Convert values 0–1 to integers 0–255, in which golden inputs are stored."""
    return np.rint(values * 255).astype(np.uint8)


def dequantise(values: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert stored integers 0–255 back to values 0–1."""
    return values.astype(np.float32) / np.float32(255)


def write_golden(folder: Path, name: str, stored: NDArray[np.uint8]) -> None:
    """Write ``golden.npz``: inputs, extreme ones among them, and what onnxruntime predicts.

    Parameters
    ----------
    folder : Path
        Version folder with ``model.onnx``.
    name : str
        Name of the input.
    stored : ndarray of uint8
        Inputs, as returned by `quantise`; the extreme inputs are appended.
    """
    stored = np.concatenate([stored, extreme_inputs(stored)])
    runtime = session(folder / "model.onnx")
    names = [output.name for output in runtime.get_outputs()]
    rows = [runtime.run(names, {name: dequantise(each[None])}) for each in stored]
    outputs = [np.concatenate(output) for output in zip(*rows, strict=True)]
    write_arrays(folder / "golden.npz", **{name: stored}, **dict(zip(names, outputs, strict=True)))
