"""Writes ``model.fp16.onnx`` beside ``model.onnx``: the same network, with explicit precision.

TensorRT compiles it as it stands: which layers are FP16 is in the file, none of it in the options
of a build. ``model.onnx`` stays the identity of the version and what CPUs run.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx

from core.errors import ConfigurationError
from core.model_versions import newest_version
from training.cohorts.examples import Example, crops_as_input, volume_as_input
from training.cohorts.folder import load_cohort
from training.release.golden import dequantise
from training.release.precision.graph import float_layers, without_identities
from training.release.precision.layers import decide
from training.storage import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from worker.grading.records import Float32Array

_LOG: Final = logging.getLogger(__name__)
FILE: Final = "model.fp16.onnx"
SCANS: Final = 20
"""Scans of a cohort that the decision is measured on, besides the golden inputs."""
_INPUTS: Final = {"rating": "crops", "severity": "volume"}


def write_fp16(
    folder: Path, name: str, examples: Sequence[Example], enhancement: str
) -> dict[str, Any]:
    """Write the FP16 file of a version; return what ``model.json`` says about it.

    Parameters
    ----------
    folder : Path
        Version folder with ``model.onnx`` and ``golden.npz``.
    name : {"rating", "severity"}
        The model.
    examples : sequence of Example
        Scans; the first `SCANS` are used.
    enhancement : str
        Haar enhancement of the rating model's images.

    Returns
    -------
    dict
        ``fp16_sha256``, and ``fp32_layers``: `KeptLayer` each.
    """
    network = without_identities(onnx.load(folder / "model.onnx"))
    samples = partial(_samples, folder, name, list(examples[:SCANS]), enhancement)
    converted, kept = decide(network, samples)
    content = converted.SerializeToString(deterministic=True)
    with atomic_write(folder / FILE) as path:
        path.write_bytes(content)
    reasons = Counter(layer.reason for layer in kept)
    _LOG.info(
        "%s: %d of %d layers stay FP32 (%s)",
        FILE,
        len(kept),
        len(float_layers(network)),
        ", ".join(f"{reason}: {count}" for reason, count in reasons.items()),
    )
    return {
        "fp16_sha256": hashlib.sha256(content).hexdigest(),
        "fp32_layers": [layer.describe() for layer in kept],
    }


def _samples(
    folder: Path, name: str, examples: Sequence[Example], enhancement: str
) -> Iterator[dict[str, Float32Array]]:
    """Yield the golden inputs, with the extreme ones among them, and those of the scans."""
    tensor = _INPUTS[name]
    with np.load(folder / "golden.npz") as golden:
        stored = golden[tensor]
    for row in stored:
        yield {tensor: dequantise(row[None])}
    for example in examples:
        if name == "rating":
            yield {tensor: crops_as_input(example.crops, enhancement)}
        else:
            yield {tensor: volume_as_input(example.volume[None])}


def add_fp16(models: Path, name: str, version: str | None, cohort: Path) -> Path:
    """Write the FP16 file of a version that was exported without one, and describe it.

    Parameters
    ----------
    models : Path
        ``triton_models``.
    name : {"rating", "severity"}
    version : str, optional
        By default the highest.
    cohort : Path
        Scans to measure with.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigurationError
        There is no such version, or the cohort cannot be used.
    """
    try:
        folder = models / name / (version or newest_version(models / name))
        described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"No such version: {error}.", "Correct --models.") from None
    enhancement = described["preprocessing"]["enhancement"]
    examples = load_cohort(cohort, volumes=name == "severity")
    described |= write_fp16(folder, name, examples, enhancement)
    with atomic_write(folder / "model.json") as path:
        path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return folder / FILE
