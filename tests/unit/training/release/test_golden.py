"""Golden inputs: the extreme ones, and outputs that were computed one input at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from tests.support.builders.networks import one_layer_each
from training.release.golden import dequantise, extreme_inputs, quantise, write_golden

if TYPE_CHECKING:
    from pathlib import Path


def test_extreme_inputs_are_the_four_limits() -> None:
    stored = np.random.default_rng(0).integers(0, 256, (2, 1, 4, 6), np.uint8)
    zero, one, saturated, bright = extreme_inputs(stored)
    assert zero.max() == 0
    assert one.min() == 255
    assert set(np.unique(saturated)) == {0, 255}
    assert (saturated[stored[0] == 255] == 255).all()
    assert bright.sum() == 255
    assert bright[0, 2, 3] == 255


def test_the_golden_file_holds_the_inputs_the_extreme_ones_and_the_outputs(tmp_path: Path) -> None:
    onnx.save(one_layer_each(), tmp_path / "model.onnx")
    stored = quantise(np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32))
    write_golden(tmp_path, "images", stored)
    with np.load(tmp_path / "golden.npz") as golden:
        np.testing.assert_array_equal(golden["images"][:3], stored)
        np.testing.assert_array_equal(golden["images"][3:], extreme_inputs(stored))
        assert golden["probabilities"].shape == (7,)
        assert golden["probabilities"][3] == 0  # the network has no bias
    assert dequantise(np.array([0, 255], np.uint8)).tolist() == [0, 1]
