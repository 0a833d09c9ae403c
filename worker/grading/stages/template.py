"""The template: a T2-contrast image in MNI space with its masks.

The file is derived by ``training/derive_template.py``; see ``worker/assets/NOTICE.md``.
"""

from __future__ import annotations

import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk

from core.errors import Failed
from worker.grading.records import Template

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEMPLATE_FILE: Final = Path(__file__).resolve().parents[2] / "assets" / "template.npz"


@cache
def load_template(file: Path = TEMPLATE_FILE) -> Template:
    """Read the template (1 mm isotropic, LPS axes), once per process.

    Raises
    ------
    Failed
        ``template-unreadable``: the file is missing or damaged.
    """
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:
            origin = arrays["origin_mm"]
            t2 = arrays["t2"].astype(np.float32) / arrays["levels"].astype(np.float32)
            return Template(
                t2=_image(t2, origin),
                brain_mask=_image(arrays["brain"], origin),
                basal_ganglia_mask=_image(arrays["basal_ganglia"], origin),
            )
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise Failed(
            "template-unreadable",
            f"The MNI template {file} cannot be read: {error}.",
            "Reinstall epvs-node, which contains the file.",
        ) from error


def _image(
    array: NDArray[np.float32] | NDArray[np.uint8], origin: NDArray[np.float64]
) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetOrigin(origin.tolist())
    return image
