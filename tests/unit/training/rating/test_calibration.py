"""Temperature scaling finds by how much the probabilities are off."""

import numpy as np
import pytest

from training.rating.calibration import fit_temperature


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_overconfident_probabilities_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (honest.cumsum(axis=1) > rng.random((len(honest), 1))).argmax(axis=1)
    sharp = honest**temperature
    sharp /= sharp.sum(axis=1, keepdims=True)
    found = fit_temperature(sharp.astype(np.float32), truth)
    assert found == pytest.approx(temperature, rel=0.05)
