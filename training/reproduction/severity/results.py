"""Results of the severity trainings: test predictions and the scores derived from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import roc_auc_score

from training.cohorts.examples import SEVERE_COUNT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class JobResult:
    """Result of one training job.

    Attributes
    ----------
    probability : ndarray, shape (tested,)
    saliency : ndarray, shape (tested, 1, rows, columns)
    count : ndarray, shape (tested,)
    test : ndarray, shape (tested,)
        Indices of the test subjects.
    trained, validated : int
        Numbers of training and validation subjects.
    training_auc, validation_auc : float
        AUC of the weights that were kept. The latter is NaN in the cross-validation, which has no
        validation subjects.
    seconds : float
    """

    probability: NDArray[np.float64]
    saliency: NDArray[np.float32]
    count: NDArray[np.int64]
    test: NDArray[np.int64]
    trained: int
    validated: int
    training_auc: float
    validation_auc: float
    seconds: float

    @property
    def severe(self) -> NDArray[np.bool_]:
        """Which test subjects are moderate-to-severe."""
        return np.asarray(self.count >= SEVERE_COUNT)

    @property
    def predicted_severe(self) -> NDArray[np.bool_]:
        """Which test subjects are predicted moderate-to-severe."""
        return np.asarray(self.probability >= 0.5)

    @property
    def outcomes(self) -> dict[str, NDArray[np.bool_]]:
        """Test subjects by kind of outcome."""
        return {
            "true positive": self.severe & self.predicted_severe,
            "true negative": ~self.severe & ~self.predicted_severe,
            "false positive": ~self.severe & self.predicted_severe,
            "false negative": self.severe & ~self.predicted_severe,
        }

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return float(np.mean(self.severe == self.predicted_severe))

    @property
    def auc(self) -> float:
        """Area under the ROC curve."""
        return float(roc_auc_score(self.severe, self.probability))


def best_design(compared: Mapping[str, Sequence[JobResult]]) -> str:
    """Return the title of the design with the best mean AUC over the held-out folds."""
    return max(compared, key=lambda title: np.mean([fold.auc for fold in compared[title]]))
