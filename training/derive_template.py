"""Derives the T2 template, its masks and the tissue maps from MNI ICBM152 2009a.

Run manually with ``python -m training.derive_template``. It reads only the tissue maps that ship
with nilearn. The results are kept in the repository, so that neither the node nor training needs
nilearn:

- ``worker/assets/template.npz``: the template for registration and cropping;
- ``training/assets/tissue_maps.npz``: grey matter, white matter, brain mask (synthetic heads).

Arrays are uint8 on the 1 mm MNI grid, indexed (slice, row, column) in LPS order; `origin_mm` is
the LPS position of the first voxel. Intensities from 0 to 1 are stored as 0 to `LEVELS`: finer than
the noise of any scan, and coarse enough to compress well.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT: Final = Path(__file__).resolve().parent.parent
TEMPLATE_FILE: Final = ROOT / "worker" / "assets" / "template.npz"
TISSUE_FILE: Final = ROOT / "training" / "assets" / "tissue_maps.npz"

CSF, GREY, WHITE = 1.0, 0.55, 0.36
"""T2 signal of the template, relative to CSF."""
LEVELS: Final = 63
SULCI_CLOSING: Final = 6
"""Radius (voxels) of the closing that includes the CSF of the sulci in the brain mask."""
MARGIN: Final = 8
"""Voxels kept around the brain."""

BASAL_GANGLIA: Final = (
    # centre (|x|, y, z) and semi-axes in RAS mm, rotation about z in degrees
    ((26.0, 2.0, 1.0), (8.0, 19.0, 13.0), -14.0),  # putamen
    ((19.0, -4.0, -1.0), (6.0, 10.0, 6.5), -30.0),  # globus pallidus
    ((13.0, 13.0, 8.0), (7.5, 13.0, 14.0), 0.0),  # head of the caudate nucleus
)
NUCLEUS_EDGE: Final = 1.18
"""Ellipsoid radius, in semi-axes, at which a nucleus ends; above 1 because EPVS cross its edge."""
CAPSULE_CLOSING: Final = 4
"""Radius (voxels) of the closing that includes the capsules between the nuclei."""


def nilearn_maps() -> Path:
    """Return the folder of nilearn's copy of the ICBM152 2009a maps."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise SystemExit("This script needs the tissue maps of nilearn: pip install nilearn")
    return Path(spec.origin).parent / "datasets" / "data"


def read_map(folder: Path, tissue: str) -> sitk.Image:
    """Read one map as float32, 0–1, in LPS order."""
    image = sitk.ReadImage(str(folder / f"mni_icbm152_{tissue}_tal_nlin_sym_09a_converted.nii.gz"))
    return sitk.ShiftScale(sitk.DICOMOrient(image, "LPS"), 0.0, 1 / 255, sitk.sitkFloat32)


def crop_to_brain(maps: dict[str, sitk.Image]) -> dict[str, sitk.Image]:
    """Crop the maps to the brain and a margin, padding where the maps end."""
    pad = [MARGIN] * 3
    padded = {name: sitk.ConstantPad(image, pad, pad) for name, image in maps.items()}
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(sitk.Cast(padded["t1"] > 0, sitk.sitkUInt8))
    box = shape.GetBoundingBox(1)
    start = [box[axis] - MARGIN for axis in range(3)]
    size = [box[axis + 3] + 2 * MARGIN for axis in range(3)]
    return {name: sitk.RegionOfInterest(image, size, start) for name, image in padded.items()}


def fill_sulci(brain: sitk.Image) -> sitk.Image:
    """Extend the brain mask to the CSF of sulci, cisterns and ventricles."""
    pad = [2 * SULCI_CLOSING] * 3
    closed = sitk.BinaryMorphologicalClosing(sitk.ConstantPad(brain, pad, pad), [SULCI_CLOSING] * 3)
    return sitk.Crop(sitk.BinaryFillhole(closed), pad, pad)


def basal_ganglia_zone(tissue: sitk.Image) -> sitk.Image:
    """Return the region in which EPVS are counted: nuclei and the capsules between them, no CSF.

    Parameters
    ----------
    tissue : SimpleITK.Image
        Sum of grey and white matter, 0–1.
    """
    origin = tissue.GetOrigin()
    z, y, x = np.meshgrid(
        *(np.arange(tissue.GetSize()[axis]) + origin[axis] for axis in (2, 1, 0)), indexing="ij"
    )
    x, y = np.abs(x), -y  # LPS to RAS; both hemispheres alike
    nuclei = np.zeros(z.shape, bool)
    for centre, axes, degrees in BASAL_GANGLIA:
        angle = np.deg2rad(degrees)
        dx, dy, dz = x - centre[0], y - centre[1], z - centre[2]
        across = (dx * np.cos(angle) + dy * np.sin(angle)) / axes[0]
        along = (dy * np.cos(angle) - dx * np.sin(angle)) / axes[1]
        nuclei |= across**2 + along**2 + (dz / axes[2]) ** 2 < NUCLEUS_EDGE**2
    mask = sitk.GetImageFromArray(nuclei.astype(np.uint8))
    zone = sitk.GetArrayFromImage(sitk.BinaryMorphologicalClosing(mask, [CAPSULE_CLOSING] * 3)) > 0
    zone &= (x > 8) & (x < 35) & (y > -20) & (y < 24) & (z > -9) & (z < 20)
    zone &= sitk.GetArrayViewFromImage(tissue) > 0.9
    result = sitk.GetImageFromArray(zone.astype(np.uint8))
    result.CopyInformation(tissue)
    return result


def quantise(image: sitk.Image) -> NDArray[np.uint8]:
    """Convert intensities 0–1 to integers 0–`LEVELS`."""
    return np.round(sitk.GetArrayViewFromImage(image) * LEVELS).astype(np.uint8)


def main() -> None:
    """Write both files."""
    folder = nilearn_maps()
    maps = crop_to_brain({name: read_map(folder, name) for name in ("t1", "gm", "wm")})
    brain = sitk.Cast(maps["t1"] > 0, sitk.sitkUInt8)
    mask = fill_sulci(brain)
    tissue = maps["gm"] + maps["wm"]
    csf = sitk.Clamp(sitk.Cast(mask, sitk.sitkFloat32) - tissue, lowerBound=0.0)
    t2 = sitk.Mask(CSF * csf + GREY * maps["gm"] + WHITE * maps["wm"], mask)
    origin, levels = np.array(brain.GetOrigin()), np.array(LEVELS)
    np.savez_compressed(
        TEMPLATE_FILE,
        t2=quantise(t2),
        brain=sitk.GetArrayFromImage(mask),
        basal_ganglia=sitk.GetArrayFromImage(basal_ganglia_zone(tissue)),
        origin_mm=origin,
        levels=levels,
    )
    np.savez_compressed(
        TISSUE_FILE,
        grey=quantise(maps["gm"]),
        white=quantise(maps["wm"]),
        brain=sitk.GetArrayFromImage(brain),
        origin_mm=origin,
        levels=levels,
    )


if __name__ == "__main__":
    main()
