"""Registration: `Volume` → `Registration`, the pose of the scan in MNI space.

One registration serves both models. Mattes mutual information against a T2-contrast template, in
three stages from many coarse candidates to one exact result:

1. a grid of rotations and heights at 8 mm; the best ones that differ from each other are refined
   rigidly;
2. the best two of these are restarted as similarity transforms at four scales: otherwise the scalp
   of a small head may be aligned with the edge of the template's brain;
3. at 4 mm, similarity, then affine.

Random sampling has fixed seeds, so the same scan gives the same result. Points are LPS mm.
"""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np
import SimpleITK as sitk

from core.reasons import Reason
from core.results import RegistrationQuality
from worker.grading.errors import NotGradable
from worker.grading.records import Registration, Template, Volume

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

CENTRE: Final = (0.0, 18.0, 8.0)
"""Centre of rotation: the middle of the template's brain (MNI 0, −18, 8)."""
COARSE_SHRINK, FINE_SHRINK = 8, 4
"""Template voxels (1 mm) that are averaged for stages 1 and 2, and for stage 3."""
PITCHES, YAWS, ROLLS = (-24, -12, 0, 12, 24), (-20, 0, 20), (-15, 0, 15)
"""Rotations of the grid, in degrees; a head coil allows more pitch than yaw and roll."""
HEIGHT_STEP: Final = 12.0
SCALES: Final = (0.84, 0.94, 1.04, 1.14)
N_RIGID, N_SCALED = 4, 2
"""Number of candidates that are refined rigidly, and that are restarted at every scale."""

QUALITY_SMOOTHING: Final = 1.5
"""Standard deviation (mm) of the smoothing before scan and template are compared."""
MIN_BOX_CORRELATION: Final = 0.70
"""T2 brains measured 0.77 to 0.97; T1, FLAIR-like, mirrored and shuffled ones at most 0.47; brains
misplaced by 6 mm 0.32 to 0.70."""
MIN_BRAIN_CORRELATION: Final = 0.40
MIN_COVERAGE: Final = 0.95
SCALE_RANGE: Final = (0.8, 1.25)


class _Schedule(NamedTuple):
    """One gradient descent: (step bound in mm, iterations), share of voxels, histogram bins."""

    passes: tuple[tuple[float, int], ...]
    sampling: float
    bins: int


_COARSE = _Schedule(((4.0, 25), (1.5, 12)), 0.5, 24)
_SIFT = _Schedule(((2.0, 20),), 0.25, 32)
_FINE = _Schedule(((1.5, 30), (0.5, 20)), 0.25, 32)


_Pose: TypeAlias = sitk.Euler3DTransform | sitk.Similarity3DTransform | sitk.AffineTransform


class _Candidate(NamedTuple):
    """A transform from template to scan and its metric; lower is better."""

    metric: float
    transform: _Pose


@dataclass(frozen=True, slots=True)
class _Level:
    """Template and brain mask at one resolution."""

    t2: sitk.Image
    mask: sitk.Image

    @classmethod
    def of(cls, template: Template, shrink: int) -> _Level:
        mask = sitk.BinShrink(sitk.Cast(template.brain_mask, sitk.sitkFloat32), [shrink] * 3)
        return cls(sitk.BinShrink(template.t2, [shrink] * 3), mask > 0.5)


def register(volume: Volume, template: Template, *, threads: int = 2) -> Registration:
    """Register the template to the scan.

    Parameters
    ----------
    volume : Volume
    template : Template
    threads : int
        Number of candidates that are refined in parallel.

    Raises
    ------
    NotGradable
        The scan contains nothing of the size of a head.
    """
    scan = _prepare(volume.image)
    coarse_scan = _shrink_to(scan, 5.6)
    coarse, fine = _Level.of(template, COARSE_SHRINK), _Level.of(template, FINE_SHRINK)

    with _reproducible(), ThreadPoolExecutor(threads) as pool:

        def refine(
            starts: Iterable[_Pose], level: _Level, image: sitk.Image, plan: _Schedule
        ) -> list[_Candidate]:
            found = pool.map(lambda start: _descend(start, level, image, plan), starts)
            return sorted(found, key=lambda candidate: candidate.metric)

        rigid = refine(_initial_guesses(coarse, coarse_scan), coarse, coarse_scan, _COARSE)
        if not rigid:
            raise NotGradable(Reason.NOT_A_T2_BRAIN, "nothing of a head's size in the scan")
        restarts = [_scaled(p.transform, scale) for p in rigid[:N_SCALED] for scale in SCALES]
        similar = refine(restarts, coarse, coarse_scan, _COARSE)[:N_RIGID]
        sifted = refine([candidate.transform for candidate in similar], fine, scan, _SIFT)
        similarity = _descend(sifted[0].transform, fine, scan, _FINE).transform
        affine = sitk.AffineTransform(3)
        affine.SetCenter(CENTRE)
        affine.SetMatrix(similarity.GetMatrix())
        affine.SetTranslation(similarity.GetTranslation())
        _descend(affine, fine, scan, _FINE)
    return Registration(affine, _nearest_rigid(affine), _measure_quality(affine, fine, scan))


@contextmanager
def _reproducible() -> Iterator[None]:
    """Use one thread per metric: with several, ITK sums the histogram in a varying order.

    The setting is global because the metric ignores that of the registration method.
    """
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def check_quality(quality: RegistrationQuality) -> None:
    """Check that the scan is a T2-weighted brain and contains the basal ganglia.

    Raises
    ------
    NotGradable
        With the figures outside their limits.
    """
    problems = []
    # Negated comparisons, so that NaN fails too.
    if not quality.box_correlation >= MIN_BOX_CORRELATION:
        problems.append(
            f"correlation around the basal ganglia {quality.box_correlation:.2f} "
            f"(at least {MIN_BOX_CORRELATION:.2f} needed)"
        )
    if not quality.brain_correlation >= MIN_BRAIN_CORRELATION:
        problems.append(
            f"correlation over the brain {quality.brain_correlation:.2f} "
            f"(at least {MIN_BRAIN_CORRELATION:.2f} needed)"
        )
    low, high = SCALE_RANGE
    if not low <= quality.scale <= high:
        problems.append(f"scale {quality.scale:.2f} ({low} to {high} expected)")
    if problems:
        raise NotGradable(Reason.NOT_A_T2_BRAIN, "; ".join(problems))
    if quality.coverage < MIN_COVERAGE:
        raise NotGradable(
            Reason.OUTSIDE_FIELD_OF_VIEW,
            f"{quality.coverage:.0%} of the box around the basal ganglia is inside the scan "
            f"(at least {MIN_COVERAGE:.0%} needed)",
        )


def _prepare(image: sitk.Image) -> sitk.Image:
    """Clamp outliers (flow, fat) and average to about 2 mm."""
    sample = sitk.GetArrayViewFromImage(image)[::2, ::4, ::4]
    highest = float(np.percentile(sample, 99.5))
    return _shrink_to(sitk.Clamp(image, lowerBound=0.0, upperBound=highest), 2.0)


def _shrink_to(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Average whole voxels, up to `spacing_mm`."""
    factors = [max(1, math.floor(spacing_mm / spacing + 0.25)) for spacing in image.GetSpacing()]
    return sitk.BinShrink(image, factors)


def _method(bins: int, level: _Level) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(bins)
    method.SetMetricFixedMask(level.mask)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetInterpolator(sitk.sitkLinear)
    method.MetricUseFixedImageGradientFilterOff()
    method.MetricUseMovingImageGradientFilterOff()
    return method


def _initial_guesses(level: _Level, scan: sitk.Image) -> list[_Pose]:
    """Find the best poses of the grid that differ from each other in height or rotation."""
    method = _method(_COARSE.bins, level)
    method.SetMetricSamplingPercentage(0.35, seed=3)
    tried: list[tuple[float, tuple[float, int, int, int], _Pose]] = []
    for centre in _head_centres(scan):
        for pitch, yaw, roll in itertools.product(PITCHES, YAWS, ROLLS):
            pose = sitk.Euler3DTransform()
            pose.SetCenter(CENTRE)
            pose.SetRotation(*(math.radians(angle) for angle in (pitch, roll, yaw)))
            pose.SetTranslation((centre - CENTRE).tolist())
            method.SetInitialTransform(pose)
            try:
                metric = method.MetricEvaluate(level.t2, scan)
            except RuntimeError:  # ITK: too little of the template lies inside the scan
                continue
            tried.append((metric, (centre[2], pitch, yaw, roll), pose))
    tried.sort(key=lambda entry: entry[0])
    apart = (1.5 * HEIGHT_STEP, 12.5, 20.5, 15.5)
    kept: list[tuple[float, int, int, int]] = []
    guesses: list[_Pose] = []
    for _, place, guess in tried:
        if all(
            any(abs(a - b) >= d for a, b, d in zip(place, other, apart, strict=True))
            for other in kept
        ):
            kept.append(place)
            guesses.append(guess)
        if len(guesses) == N_RIGID:
            break
    return guesses


def _head_centres(scan: sitk.Image) -> Iterable[NDArray[np.float64]]:
    """Yield candidate positions of the template's centre, at heights below the top of the head."""
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(scan)
    # Half of Otsu's threshold, which separates bright from dark tissue, not the head from air.
    voxels = np.argwhere(sitk.GetArrayViewFromImage(scan) > otsu.GetThreshold() / 2)[:, ::-1]
    axes = np.reshape(scan.GetDirection(), (3, 3)) * scan.GetSpacing()
    points = voxels @ axes.T + scan.GetOrigin()
    if not len(points):
        return
    low, high = points[:, 2].min(), points[:, 2].max()
    for height in np.arange(max(low + 15, high - 150), high - 20, HEIGHT_STEP):
        slab = points[np.abs(points[:, 2] - height) < 25, :2]
        if len(slab) >= 30:
            middle = np.percentile(slab, (2, 98), axis=0).mean(axis=0)
            yield np.append(middle, height)


def _scaled(pose: _Pose, scale: float) -> _Pose:
    similarity = sitk.Similarity3DTransform()
    similarity.SetCenter(CENTRE)
    similarity.SetMatrix(pose.GetMatrix())
    similarity.SetTranslation(pose.GetTranslation())
    similarity.SetScale(scale)
    return similarity


def _descend(start: _Pose, level: _Level, scan: sitk.Image, schedule: _Schedule) -> _Candidate:
    """Refine `start` in place; a run that leaves the scan gets the worst metric."""
    metric = 0.0
    for step, iterations in schedule.passes:
        method = _method(schedule.bins, level)
        method.SetMetricSamplingPercentage(schedule.sampling, seed=1)
        method.SetOptimizerAsGradientDescent(
            learningRate=1.0,
            numberOfIterations=iterations,
            convergenceMinimumValue=1e-5,
            convergenceWindowSize=8,
            estimateLearningRate=method.EachIteration,
            maximumStepSizeInPhysicalUnits=step,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(start, inPlace=True)
        try:
            method.Execute(level.t2, scan)
        except RuntimeError:  # ITK: all samples moved outside the scan
            return _Candidate(0.0, start)
        metric = method.GetMetricValue()
    return _Candidate(metric, start)


def _nearest_rigid(affine: _Pose) -> sitk.Transform:
    """Rotation closest to the affine's matrix (polar decomposition), about the same centre."""
    u, _, vt = np.linalg.svd(np.reshape(affine.GetMatrix(), (3, 3)))
    rigid = sitk.Euler3DTransform()
    rigid.SetCenter(CENTRE)
    rigid.SetMatrix((u @ vt).ravel().tolist(), 1e-5)
    rigid.SetTranslation(affine.GetTranslation())
    return rigid


def _measure_quality(affine: _Pose, level: _Level, scan: sitk.Image) -> RegistrationQuality:
    # Smoothed to the resolution of the template's level: noise would lower the correlation.
    smooth = sitk.SmoothingRecursiveGaussian(scan, QUALITY_SMOOTHING)
    moved = sitk.Resample(smooth, level.t2, affine, sitk.sitkLinear, math.nan)
    found = sitk.GetArrayViewFromImage(moved)
    expected = sitk.GetArrayViewFromImage(level.t2)
    inside = ~np.isnan(found)
    brain = sitk.GetArrayViewFromImage(level.mask) > 0
    origin, spacing = np.array(level.t2.GetOrigin()), np.array(level.t2.GetSpacing())
    z, y, x = (
        np.arange(found.shape[2 - axis]) * spacing[axis] + origin[axis] for axis in (2, 1, 0)
    )
    # Basal ganglia, lateral ventricles and what lies between; the limits were measured in this box.
    z, y, x = np.meshgrid(z, y, x, indexing="ij")
    box = brain & (np.abs(x) < 48) & (y > -40) & (y < 48) & (z > -16) & (z < 32)
    return RegistrationQuality(
        box_correlation=_correlation(found[box & inside], expected[box & inside]),
        brain_correlation=_correlation(found[brain & inside], expected[brain & inside]),
        coverage=float(inside[box].mean()),
        scale=float(abs(np.linalg.det(np.reshape(affine.GetMatrix(), (3, 3)))) ** (1 / 3)),
    )


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Pearson's correlation; 0 where it is undefined."""
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
