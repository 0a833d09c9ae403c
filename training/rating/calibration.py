"""Calibration: probabilities that can be taken at their word.

Temperature scaling (Guo et al., On calibration of modern neural networks, ICML 2017): one number
divides all logits. No answer changes, only how sure it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray


def fit_temperature(probabilities: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """Find the temperature under which the truth is likeliest.

    Parameters
    ----------
    probabilities : ndarray, shape (n, classes)
        Of the network as it is, for subjects that it was not trained on.
    truth : ndarray, shape (n,)

    Returns
    -------
    float
        Between 1/20 and 20; above 1 where the network is too sure.
    """
    logits = np.log(np.maximum(probabilities.astype(float), 1e-12))

    def unlikelihood(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(len(truth)), truth].mean())

    found = minimize_scalar(unlikelihood, bounds=(-np.log(20), np.log(20)), method="bounded")
    return float(np.exp(found.x))
