"""Calibration of probabilities by temperature scaling.

All logits are divided by one number, the temperature (Guo et al., On calibration of modern neural
networks, ICML 2017). This changes the confidence of a prediction, never the predicted class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray


def fit_temperature(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Find the temperature that maximises the likelihood of the true classes.

    Parameters
    ----------
    probabilities : ndarray, shape (n, classes)
        Of the uncalibrated network, for subjects that it was not trained on.
    labels : ndarray, shape (n,)

    Returns
    -------
    float
        Between 1/20 and 20; above 1 if the network is overconfident.
    """
    logits = np.log(np.maximum(probabilities.astype(float), 1e-12))

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(
        negative_log_likelihood, bounds=(-np.log(20), np.log(20)), method="bounded"
    )
    return float(np.exp(found.x))
