"""The golden self-test: reading golden files, and which deviations are reported."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from core.errors import Failed
from worker.grading.inference.golden import (
    load_golden,
    rating_differences,
    severity_differences,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_rating_differences_report_each_tolerance() -> None:
    golden = {"probabilities": np.array([[0.505, 0.495, 0, 0, 0]], np.float32)}

    def differences(*row: float) -> list[str]:
        found = {"probabilities": np.array([row], np.float32)}
        return list(rating_differences(found, golden))

    assert differences(0.515, 0.485, 0, 0, 0) == []
    # Within the tolerance, but the rating changes.
    assert differences(0.495, 0.505, 0, 0, 0) == ["ratings [1] instead of [0]"]
    assert differences(0.6, 0.4, 0, 0, 0) == ["probabilities differ by 0.095 (at most 0.02)"]
    assert len(differences(np.nan, 0.4, 0, 0, 0)) >= 1


def test_severity_differences_report_each_tolerance() -> None:
    random = np.random.default_rng(0)
    saliency = random.random((1, 1, 16, 16), np.float32)
    golden = {"probability": np.array([[0.3]], np.float32), "saliency": saliency}

    def differences(probability: float, map_: np.ndarray) -> list[str]:
        found = {"probability": np.array([[probability]], np.float32), "saliency": map_}
        return list(severity_differences(found, golden))

    assert differences(0.31, saliency * 1.5) == []
    assert differences(0.35, saliency) == ["probabilities differ by 0.050 (at most 0.02)"]
    assert "saliency correlates" in differences(0.3, np.roll(saliency, 3, axis=-1))[0]
    assert "saliency correlates nan" in differences(0.3, np.zeros_like(saliency))[0]


def test_ratings_that_are_equally_probable_may_change_places() -> None:
    """Extreme inputs may be ties; those of scans are chosen with a margin."""
    golden = {"probabilities": np.array([[0.501, 0.499], [0.9, 0.1]], np.float32)}
    found = {"probabilities": np.array([[0.499, 0.501], [0.9, 0.1]], np.float32)}
    assert list(rating_differences(found, golden)) == []
    golden["probabilities"][1] = 0.503, 0.497
    found["probabilities"][1] = 0.499, 0.501
    assert list(rating_differences(found, golden)) == ["ratings [1, 1] instead of [0, 0]"]


def test_every_volume_and_flat_maps_are_compared() -> None:
    random = np.random.default_rng(0)
    golden = {
        "probability": np.full((3, 1), 0.3, np.float32),
        "saliency": np.stack(
            [random.random((1, 4, 4), np.float32), np.zeros((1, 4, 4)), np.full((1, 4, 4), 0.001)]
        ).astype(np.float32),
    }

    def differences(row: int, map_: np.ndarray) -> list[str]:
        saliency = golden["saliency"].copy()
        saliency[row] = map_
        return list(severity_differences(golden | {"saliency": saliency}, golden))

    assert differences(0, golden["saliency"][0]) == []
    assert differences(1, 1e-6 * golden["saliency"][0]) == []  # rounding
    assert "saliency differs by 0.0" in differences(1, 0.05 * golden["saliency"][0])[0]
    assert "saliency differs by nan" in differences(2, np.full((1, 4, 4), np.nan))[0]
    assert "saliency correlates" in differences(0, np.roll(golden["saliency"][0], 1))[0]


def test_golden_arrays_stored_as_bytes_stand_for_fractions_of_255(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    np.savez_compressed(
        path, crops=np.array([0, 51, 255], np.uint8), probabilities=np.array([0.25], np.float16)
    )
    inputs, outputs = load_golden(
        path,
        {"crops": ()},
        {"probabilities": ()},
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    np.testing.assert_array_equal(inputs["crops"], np.array([0, 0.2, 1], np.float32))
    np.testing.assert_array_equal(outputs["probabilities"], np.array([0.25], np.float32))
    assert inputs["crops"].dtype == outputs["probabilities"].dtype == np.float32


def test_a_golden_file_without_an_output_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    np.savez_compressed(path, crops=np.zeros(1, np.uint8))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(Failed, match="probabilities") as caught:
        load_golden(path, {"crops": ()}, {"probabilities": ()}, sha256=digest)
    assert caught.value.code == "model-description-invalid"


def test_another_golden_file_than_the_described_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    np.savez_compressed(path, crops=np.zeros(1, np.uint8), probabilities=np.zeros(1, np.uint8))
    with pytest.raises(Failed, match="golden_sha256"):
        load_golden(path, {"crops": ()}, {"probabilities": ()}, sha256="0" * 64)
