"""Temperature scaling recovers the temperature of miscalibrated probabilities."""

import numpy as np
import pytest

from training.rating.calibration import fit_temperature


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_recovered(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    calibrated = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (calibrated.cumsum(axis=1) > rng.random((len(calibrated), 1))).argmax(axis=1)
    distorted = calibrated**temperature
    distorted /= distorted.sum(axis=1, keepdims=True)
    found = fit_temperature(distorted.astype(np.float32), labels)
    assert found == pytest.approx(temperature, rel=0.05)
