"""Anatomy of synthetic heads: the T2 or T1 signal at every point of MNI space.

The brain is derived from the MNI ICBM152 tissue probability maps. Skull, scalp, face, eyes and air
spaces are simple shapes. Contrast, cortical detail and texture are random for each subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk

from training.synthetic.fields import Float32Array, Float64Array, smooth_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOW_MM: Final = (-110, -112, -112)
"""Centre of the first voxel of the head grid, MNI LPS mm; voxels are 1 mm."""
HIGH_MM: Final = (110, 145, 112)
_SHAPE: Final = tuple(high - low + 1 for low, high in zip(LOW_MM, HIGH_MM, strict=True))[::-1]

# Tissues in the label map; a lookup table converts them to signal.
_AIR, _BONE, _MARROW, _FAT, _MUSCLE, _ORBIT, _EYE, _LENS, _BRAIN = range(9)


@dataclass(frozen=True)
class Head:
    """Anatomy that all synthetic heads share, in MNI space.

    Attributes
    ----------
    labels : ndarray of uint8, shape (depth, height, width)
        Tissue outside the brain; ``_BRAIN`` inside the skull, where the maps below apply.
    brain : ndarray of int
        Flat indices of the intracranial voxels.
    log_tissue : ndarray of float32, shape (3, len(brain))
        Logarithms of the shares of grey matter, white matter and CSF.
    nuclei : ndarray of float32, shape (3, len(brain))
        Soft membership in putamen, pallidum and thalamus, which are darker than cortex on T2.
    basal_ganglia : ndarray of float, shape (n, 3)
        Positions, MNI LPS mm, of the voxels that may contain EPVS.
    """

    labels: NDArray[np.uint8]
    brain: NDArray[np.int64]
    log_tissue: Float32Array
    nuclei: Float32Array
    basal_ganglia: Float64Array


@dataclass(frozen=True)
class Contrast:
    """Signal of each tissue relative to CSF."""

    csf: float = 1.0
    grey: float = 0.55
    white: float = 0.36
    fat: float = 0.7
    muscle: float = 0.2
    marrow: float = 0.35
    bone: float = 0.05
    nuclei: tuple[float, float, float] = (0.9, 0.7, 0.88)
    """Factors applied to grey matter in putamen, pallidum and thalamus."""
    sharpness: float = 2.0
    """Above 1, tissue borders are sharper than in the averaged template."""
    atrophy: float = 0.0
    """Above 0, mixed voxels become CSF, which widens sulci and ventricles."""


def random_t2_contrast(rng: np.random.Generator) -> Contrast:
    """Draw a T2 contrast from the range over scanners, echo times and ages."""
    white = rng.uniform(0.16, 0.42)
    return Contrast(
        grey=white * rng.uniform(1.35, 1.7),
        white=white,
        fat=rng.uniform(0.35, 0.95),
        muscle=rng.uniform(0.15, 0.28),
        marrow=rng.uniform(0.2, 0.5),
        nuclei=(rng.uniform(0.80, 0.98), rng.uniform(0.60, 0.80), rng.uniform(0.82, 0.95)),
        sharpness=rng.uniform(1.5, 3.5),
        atrophy=rng.uniform(-0.4, 1.6),
    )


T1_CONTRAST: Final = Contrast(
    csf=0.15, grey=0.5, white=0.8, fat=1.0, muscle=0.35, marrow=0.8, nuclei=(1.1, 1.3, 1.2)
)


@lru_cache(maxsize=1)
def head() -> Head:
    """Build the shared anatomy from the tissue maps (takes seconds, once per process)."""
    grey, white, brain_mask = _tissue_maps()
    z, y, x = np.meshgrid(
        *(np.arange(LOW_MM[a], HIGH_MM[a] + 1, dtype=np.float32) for a in (2, 1, 0)),
        indexing="ij",
        sparse=True,
    )
    canal = ((x / 11) ** 2 + ((y - 44) / 9) ** 2 < 1) & (z < -66)
    cord = ((x / 6.5) ** 2 + ((y - 44) / 5.5) ** 2 < 1) & (z < -70)
    outside = _distance_outside(brain_mask, canal)
    labels = _outer_tissues(x, y, z, outside)
    labels[outside < 0.5] = _BRAIN

    brain = np.flatnonzero(labels == _BRAIN)
    k, j, i = np.unravel_index(brain, labels.shape)
    at = (np.stack([i, j, k], axis=1) + LOW_MM).astype(np.float32)
    g = np.where(cord, np.float32(0.1), grey).ravel()[brain]
    w = np.where(cord, np.float32(0.9), white).ravel()[brain]
    tiny = np.float32(0.02)
    log_tissue = np.log(np.stack([g, w, np.clip(1 - g - w, 0, 1)]) + tiny)

    putamen = _ellipsoid(at, (26, -2, 1), (8, 19, 13), 14)
    pallidum = _ellipsoid(at, (19, 4, -1), (6, 10, 6.5), 30)
    caudate = _ellipsoid(at, (13, -13, 8), (7.5, 13, 14), 0)
    thalamus = _ellipsoid(at, (11, 19, 7), (11, 15, 10), 0)
    # EPVS lie in the lentiform nucleus, the head of the caudate and the capsules between them.
    ax, y_b, z_b = np.abs(at[:, 0]), at[:, 1], at[:, 2]
    box = (ax > 8) & (ax < 35) & (np.abs(y_b + 2) < 22) & (z_b > -7) & (z_b < 18)
    nuclei = np.zeros(labels.shape, dtype=bool)
    nuclei.ravel()[brain] = np.maximum.reduce([putamen, pallidum, caudate]) > 0.25
    zone = box & (g + w > 0.9) & _close(nuclei, 4).ravel()[brain]
    return Head(
        labels, brain, log_tissue, np.stack([putamen, pallidum, thalamus]), at[zone].astype(float)
    )


def signal_map(rng: np.random.Generator, contrast: Contrast) -> sitk.Image:
    """Compute the signal of one subject's head.

    Parameters
    ----------
    rng : numpy.random.Generator
        Determines cortical detail, texture and the signal of the scalp.
    contrast : Contrast

    Returns
    -------
    SimpleITK.Image
        float32, 1 mm, MNI LPS; 0 in air.
    """
    common = head()
    detail = smooth_noise(rng, _SHAPE, fwhm=5, step=2.5)
    folds = smooth_noise(rng, _SHAPE, fwhm=5, step=2.5)
    table = np.zeros(9, dtype=np.float32)
    table[[_BONE, _MARROW, _FAT, _MUSCLE]] = (
        contrast.bone,
        contrast.marrow,
        contrast.fat,
        contrast.muscle,
    )
    table[[_ORBIT, _EYE, _LENS]] = contrast.fat, 1.1 * contrast.csf, 0.15
    signal = table[common.labels] * (1 + 0.15 * detail)

    n_grey, n_white = detail.ravel()[common.brain], folds.ravel()[common.brain]
    logits = np.float32(contrast.sharpness) * common.log_tissue
    logits[0] += 0.5 * n_grey
    logits[1] += 0.35 * n_white
    logits[2] += np.float32(0.5 * contrast.atrophy)
    share = np.exp(logits - logits.max(axis=0))
    share /= share.sum(axis=0)
    darkening = np.ones(len(common.brain), dtype=np.float32)
    for membership, factor in zip(common.nuclei, contrast.nuclei, strict=True):
        darkening *= 1 - membership * np.float32(1 - factor)
    capsule = 1 - np.float32(0.12) * common.nuclei[1]
    signal.ravel()[common.brain] = (
        share[0] * np.float32(contrast.grey) * darkening
        + share[1] * np.float32(contrast.white) * capsule
        + share[2] * np.float32(contrast.csf)
    )
    image = sitk.GetImageFromArray(signal)
    image.SetOrigin([float(v) for v in LOW_MM])
    return image


def _tissue_maps() -> tuple[Float32Array, Float32Array, NDArray[np.bool_]]:
    """Load grey matter, white matter and brain mask on the head grid."""
    with as_file(files("training") / "assets" / "tissue_maps.npz") as path, np.load(path) as maps:
        first = np.round(maps["origin_mm"]).astype(int) - LOW_MM
        levels = np.float32(maps["levels"])
        stored = [maps[name] for name in ("grey", "white", "brain")]
    whole = [np.zeros(_SHAPE, dtype=np.float32) for _ in stored]
    for share, target in zip(stored, whole, strict=True):
        depth, height, width = share.shape
        target[
            first[2] : first[2] + depth, first[1] : first[1] + height, first[0] : first[0] + width
        ] = share
    return whole[0] / levels, whole[1] / levels, whole[2] > 0


def _distance_outside(brain: NDArray[np.bool_], canal: NDArray[np.bool_]) -> Float32Array:
    """Signed distance in mm from the inner table of the skull, negative inside.

    The intracranial space is the brain with closed sulci and cisterns, and the spinal canal. It is
    computed at half resolution, because the surface is smooth and closing by 10 mm is slow.
    """
    half = brain[::2, ::2, ::2] | canal[::2, ::2, ::2]
    distance = sitk.GetImageFromArray(_signed_distance(_close(half, 5)) * 2)
    fine = sitk.Image(list(_SHAPE[::-1]), sitk.sitkFloat32)
    fine.SetSpacing([0.5] * 3)
    return sitk.GetArrayFromImage(
        sitk.Resample(distance, fine, sitk.Transform(), sitk.sitkLinear, 99.0)
    )


def _outer_tissues(
    x: Float32Array, y: Float32Array, z: Float32Array, outside: Float32Array
) -> NDArray[np.uint8]:
    """Label skull, scalp, face and neck around the brain."""
    face = (x / 62) ** 2 + ((y + 38) / 52) ** 2 + ((z + 72) / 62) ** 2 < 1
    neck = ((x / 58) ** 2 + ((y - 32) / 60) ** 2 < 1) & (z < -52)
    within = (outside < 13) | face | neck
    depth = -_signed_distance(within)
    labels = np.where(within, np.where(depth < 4.5, _FAT, _MUSCLE), _AIR).astype(np.uint8)
    labels[outside < 7.5] = _BONE
    labels[np.abs(outside - 4) < 1.3] = _MARROW
    ax = np.abs(x)
    orbit = ((ax - 28) / 19) ** 2 + ((y + 50) / 24) ** 2 + ((z + 40) / 17) ** 2 < 1
    eye = (ax - 32) ** 2 + (y + 62) ** 2 + (z + 40) ** 2 < 12**2
    lens = (ax - 32) ** 2 + (y + 72) ** 2 + (z + 40) ** 2 < 3**2
    sinuses = (x / 9) ** 2 + ((y + 45) / 26) ** 2 + ((z + 42) / 16) ** 2 < 1
    sinuses = sinuses | (((ax - 33) / 13) ** 2 + ((y + 52) / 15) ** 2 + ((z + 74) / 15) ** 2 < 1)
    mastoids = ((ax - 52) / 12) ** 2 + ((y - 42) / 14) ** 2 + ((z + 52) / 14) ** 2 < 1
    for region, label in (
        (orbit, _ORBIT),
        (mastoids, _BONE),
        (sinuses, _AIR),
        (eye, _EYE),
        (lens, _LENS),
    ):
        labels[np.broadcast_to(region, labels.shape) & within] = label
    return labels


def _ellipsoid(
    at: Float32Array,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    turn_deg: float,
) -> Float32Array:
    """Soft membership of points in a pair of ellipsoids, one per hemisphere, rotated about z."""
    dx, dy, dz = np.abs(at[:, 0]) - centre[0], at[:, 1] - centre[1], at[:, 2] - centre[2]
    c, s = np.float32(np.cos(np.deg2rad(turn_deg))), np.float32(np.sin(np.deg2rad(turn_deg)))
    radius = np.sqrt(
        ((dx * c + dy * s) / radii[0]) ** 2
        + ((dy * c - dx * s) / radii[1]) ** 2
        + (dz / radii[2]) ** 2
    )
    return (1 / (1 + np.exp(np.clip(6 * (radius - 1), -30, 30)))).astype(np.float32)


def _close(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Close a mask morphologically and fill its holes."""
    image = sitk.ConstantPad(
        sitk.GetImageFromArray(mask.astype(np.uint8)), [2 * radius] * 3, [2 * radius] * 3, 0
    )
    image = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(image, [radius] * 3))
    return sitk.GetArrayFromImage(sitk.Crop(image, [2 * radius] * 3, [2 * radius] * 3)) > 0


def _signed_distance(mask: NDArray[np.bool_]) -> Float32Array:
    """Signed distance in mm from the border of `mask`, negative inside."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False)
    return sitk.GetArrayFromImage(distance)
