"""The golden self-test: inputs whose outputs are known, and how far a model may deviate.

The tolerances allow for FP16 engines and for other GPUs, not for another set of weights.
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from core.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from worker.grading.records import Float32Array

PROBABILITY_TOLERANCE: Final = 0.02
"""Largest difference of a probability from the golden one."""
SALIENCY_CORRELATION: Final = 0.99
"""Smallest Pearson correlation of the saliency with the golden one."""
TIE: Final = 0.005
"""Two golden probabilities that differ by less than this may change places."""
FLAT_SALIENCY: Final = 0.005
"""Part of the strongest golden saliency. A golden map that varies by less is flat."""


def load_golden(
    path: Path, inputs: Mapping[str, Any], outputs: Mapping[str, Any], *, sha256: str
) -> tuple[dict[str, Float32Array], dict[str, Float32Array]]:
    """Read a model's golden inputs and outputs.

    Parameters
    ----------
    path : Path
        ``golden.npz``: one array per input and output, of the same name. uint8 stands for
        value/255.
    inputs, outputs : mapping
        The keys are the names of the arrays to read.
    sha256 : str
        Of the file, as ``model.json`` states it.

    Returns
    -------
    inputs, outputs : dict
        float32 arrays by name.

    Raises
    ------
    Failed
        The file is missing, lacks an array or is not the one that ``model.json`` describes.
    """
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            problem = "its SHA-256 is not the golden_sha256 of model.json"
            raise ValueError(problem)  # noqa: TRY301 - reported like every other fault of the file
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            return (
                {name: _decode(arrays[name]) for name in inputs},
                {name: _decode(arrays[name]) for name in outputs},
            )
    except (OSError, ValueError, KeyError) as error:
        raise Failed(
            "model-description-invalid",
            f"{path} cannot be used ({type(error).__name__}: {error}).",
            "Restore the model's folder.",
        ) from None


def _decode(array: np.ndarray[Any, Any]) -> Float32Array:
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    return array.astype(np.float32)


def rating_differences(
    found: Mapping[str, Float32Array], expected: Mapping[str, Float32Array]
) -> Iterator[str]:
    """Describe where a rating prediction deviates from the golden one by more than allowed."""
    probabilities, golden = found["probabilities"], expected["probabilities"]
    yield from _probability_difference(probabilities, golden)
    ratings, golden_ratings = probabilities.argmax(axis=1), golden.argmax(axis=1)
    # Extreme inputs resemble no scan, so that two ratings may be equally probable.
    highest = np.sort(golden, axis=1)
    clear = highest[:, -1] - highest[:, -2] >= TIE
    if (ratings != golden_ratings)[clear].any():
        yield f"ratings {ratings.tolist()} instead of {golden_ratings.tolist()}"


def severity_differences(
    found: Mapping[str, Float32Array], expected: Mapping[str, Float32Array]
) -> Iterator[str]:
    """Describe where a severity prediction deviates from the golden one by more than allowed."""
    yield from _probability_difference(found["probability"], expected["probability"])
    scale = FLAT_SALIENCY * float(expected["saliency"].max())
    for saliency, golden in zip(found["saliency"], expected["saliency"], strict=True):
        if np.ptp(golden) <= scale:  # a flat map correlates with nothing
            difference = np.abs(saliency - golden).max()
            if not difference <= scale:
                yield f"saliency differs by {difference:.2g} (at most {scale:.2g})"
            continue
        with np.errstate(invalid="ignore", divide="ignore"):  # the found map may be constant
            correlation = np.corrcoef(saliency.ravel(), golden.ravel())[0, 1]
        if not correlation >= SALIENCY_CORRELATION:
            yield f"saliency correlates {correlation:.3f} (at least {SALIENCY_CORRELATION})"


def _probability_difference(found: Float32Array, golden: Float32Array) -> Iterator[str]:
    difference = np.abs(found - golden).max()
    if not difference <= PROBABILITY_TOLERANCE:  # also true of NaN
        yield f"probabilities differ by {difference:.3f} (at most {PROBABILITY_TOLERANCE})"


DIFFERENCES: Final[
    Mapping[str, Callable[[Mapping[str, Float32Array], Mapping[str, Float32Array]], Iterator[str]]]
] = {"rating": rating_differences, "severity": severity_differences}
"""How the outputs of each model are compared with the golden ones: found, expected."""
