"""Statistics for gradings: agreement, calibration and comparison of training configurations.

The intraclass correlation is implemented here because the license of the library that offers it is
incompatible with this project's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

FloatArray = NDArray[np.float64]
# Named scores of a model, as they are written to JSON.
Metrics = dict[str, Any]


class Interval(NamedTuple):
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


class Difference(NamedTuple):
    """Mean of paired differences, its 95 % interval and its two-sided p-value."""

    mean: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f}, {p})"


def icc(readings: ArrayLike) -> Interval:
    """Intraclass correlation, absolute agreement of a single reader: ICC(2,1) or ICC(A,1).

    McGraw and Wong, Psychological Methods 1996;1:30–46, Tables 4 and 7.

    Parameters
    ----------
    readings : array_like, shape (images, readers)

    Returns
    -------
    Interval
        NaN if all readings are equal.
    """
    x = np.asarray(readings, dtype=float)
    n, k = x.shape
    by_image, by_reader, overall = x.mean(axis=1), x.mean(axis=0), x.mean()
    rows = k * np.sum((by_image - overall) ** 2) / (n - 1)
    columns = n * np.sum((by_reader - overall) ** 2) / (k - 1)
    residual = x - by_image[:, None] - by_reader + overall
    error = np.sum(residual**2) / ((n - 1) * (k - 1))
    total = rows + (k - 1) * error + k * (columns - error) / n
    if total <= 0:
        return Interval(np.nan, np.nan, np.nan)
    value = (rows - error) / total
    if error == 0 and columns == 0:
        return Interval(value, 1.0, 1.0)
    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    freedom = (a * columns + b * error) ** 2 / (
        (a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    )
    within = k * columns + (k * n - k - n) * error
    upper, lower = stats.f.ppf(0.975, n - 1, freedom), stats.f.ppf(0.975, freedom, n - 1)
    return Interval(
        float(value),
        float(n * (rows - upper * error) / (upper * within + n * rows)),
        float(n * (lower * rows - error) / (within + n * lower * rows)),
    )


def ac2(ratings: ArrayLike, categories: int, *, weighted: bool = True) -> Interval:
    """Gwet's AC2: chance-corrected agreement that is robust when one category prevails.

    Gwet, Handbook of Inter-Rater Reliability, 4th edition (2014), chapter 5: coefficient, and its
    standard error for randomly sampled subjects and fixed raters.

    Parameters
    ----------
    ratings : array_like of int, shape (subjects, raters)
        Categories, starting at 0; −1 if a rater did not rate.
    categories : int
    weighted : bool
        Use quadratic weights, so that neighbouring categories agree partly; otherwise AC1.

    Returns
    -------
    Interval
        NaN if fewer than two subjects have two ratings.
    """
    x = np.asarray(ratings)
    votes = np.stack([(x == category).sum(axis=1) for category in range(categories)], axis=1)
    raters = votes.sum(axis=1)
    votes, raters = votes[raters > 0], raters[raters > 0]
    shared = raters >= 2
    if shared.sum() < 2:
        return Interval(np.nan, np.nan, np.nan)
    apart = np.subtract.outer(np.arange(categories), np.arange(categories)) / (categories - 1)
    weights = 1 - apart**2 if weighted else np.eye(categories)
    agreeing = (votes * (votes @ weights - 1)).sum(axis=1)
    observed = np.where(shared, agreeing / np.maximum(raters * (raters - 1), 1), 0.0)
    share = votes / raters[:, None]
    prevalence = share.mean(axis=0)
    chance_scale = weights.sum() / (categories * (categories - 1))
    chance = chance_scale * np.sum(prevalence * (1 - prevalence))
    value = (observed[shared].mean() - chance) / (1 - chance)
    n = len(votes)
    by_subject = np.where(shared, (observed - chance) / (1 - chance) * n / shared.sum(), 0.0)
    chance_by_subject = chance_scale * (share * (1 - prevalence)).sum(axis=1)
    linear = by_subject - 2 * (1 - value) * (chance_by_subject - chance) / (1 - chance)
    error = np.sqrt(np.sum((linear - value) ** 2) / (n * (n - 1)))
    reach = stats.t.ppf(0.975, n - 1) * error
    return Interval(float(value), float(value - reach), float(min(value + reach, 1.0)))


def proportion(successes: int, trials: int) -> Interval:
    """Proportion with its exact (Clopper–Pearson) interval."""
    interval = stats.binomtest(successes, trials).proportion_ci()
    return Interval(successes / trials, float(interval.low), float(interval.high))


def corrected_paired_test(differences: ArrayLike, test_share: float) -> Difference:
    """Compare two training configurations over repeated cross-validation.

    The training sets of the folds overlap, so that an ordinary paired t-test has too many false
    positives. The variance is corrected for the overlap (Nadeau and Bengio, Machine Learning
    2003;52:239–281; for repeated cross-validation Bouckaert and Frank, PAKDD 2004).

    Parameters
    ----------
    differences : array_like, shape (n,)
        One per fold and repetition, on the same folds.
    test_share : float
        Ratio of test to training images: 1/4 with five folds.
    """
    d = np.asarray(differences, dtype=float)
    error = np.sqrt((1 / len(d) + test_share) * d.var(ddof=1))
    mean = float(d.mean())
    if error == 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    reach = stats.t.ppf(0.975, len(d) - 1) * error
    p = 2 * stats.t.sf(abs(mean) / error, len(d) - 1)
    return Difference(mean, mean - reach, mean + reach, float(p))


class Reliability(NamedTuple):
    """Reliability curve: accuracy as a function of confidence.

    Attributes
    ----------
    error : float
        Expected calibration error: mean absolute difference between confidence and accuracy over
        the bins, weighted by their predictions (Guo et al., ICML 2017).
    confidence, accuracy : ndarray, shape (bins,)
        Means of each bin that is not empty.
    predictions : ndarray, shape (bins,)
        Number of predictions in each of these bins.
    """

    error: float
    confidence: FloatArray
    accuracy: FloatArray
    predictions: NDArray[np.int64]


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> Reliability:
    """Compute reliability curve and expected calibration error over bins of equal width.

    Parameters
    ----------
    confidence : array_like, shape (n,)
        Probability of the predicted class.
    correct : array_like of bool, shape (n,)
    bins : int
    """
    c, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    place = np.minimum((c * bins).astype(int), bins - 1)
    filled = np.unique(place)
    mean = np.array([c[place == b].mean() for b in filled])
    accuracy = np.array([right[place == b].mean() for b in filled])
    predictions = np.array([(place == b).sum() for b in filled])
    error = float(np.sum(np.abs(mean - accuracy) * predictions) / len(c))
    return Reliability(error, mean, accuracy, predictions)


def mean_sd(values: Sequence[float] | FloatArray) -> str:
    """Format mean ± standard deviation in percent, as in the papers."""
    x = 100 * np.asarray(values, dtype=float)
    return f"{x.mean():.1f} ± {x.std(ddof=1):.1f}" if len(x) > 1 else f"{x[0]:.1f}"


def rounded(value: Any) -> float:
    """Round to four decimals, as a plain float for JSON."""
    return round(float(value), 4)
