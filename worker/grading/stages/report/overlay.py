"""Renders one axial slice: T2, saliency in colour, crop outlines and orientation letters.

The slice has the orientation of the stored pixels, as in a viewer, with the aspect ratio of the
anatomy. Letters at the edges state the orientation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from core.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.results import Crop
    from worker.grading.records import SaliencyMap, SelectedSeries, Volume

RGBArray = NDArray[np.uint8]
Colour = tuple[int, int, int]

SALIENCY_MAXIMUM: Final = 10.0
_FAINT, _FULL = 1.5, 4.0
"""Saliency at which the overlay begins to show, and at which it reaches its full density."""
_DENSITY: Final = 0.55
_MARGIN_MM: Final = 6.0
_OUTLINE: Final[Colour] = (0, 230, 230)
_BLACK: Final[Colour] = (0, 0, 0)
_WHITE: Final[Colour] = (255, 255, 255)

# Perceptually uniform, distinguishable in every common colour blindness, and never grey: nine
# equidistant colours of "plasma" by Smith and van der Walt (CC0).
_PLASMA: Final = np.array(
    [
        (13, 8, 135),
        (84, 2, 163),
        (139, 10, 165),
        (185, 50, 137),
        (219, 92, 104),
        (244, 136, 73),
        (254, 188, 43),
        (249, 225, 37),
        (240, 249, 33),
    ],
    dtype=np.float64,
)


@dataclass(frozen=True, slots=True)
class View:
    """Window, field of view and geometry shared by all slices of one study.

    Attributes
    ----------
    window : tuple of float
        Intensities displayed as black and as white.
    box : tuple of int
        (left, upper, right, lower) in pixels: the head with a margin.
    """

    volume: Volume
    saliency: SaliencyMap
    window: tuple[float, float]
    box: tuple[int, int, int, int]

    @classmethod
    def around_head(
        cls, volume: Volume, saliency: SaliencyMap, slice_indices: Sequence[int]
    ) -> View:
        """Return the view whose window and field of view fit the head in all given slices."""
        shown = sitk.GetArrayViewFromImage(volume.image)[list(slice_indices)]
        low, high = np.percentile(shown, (2.0, 99.2))
        high = max(float(high), float(low) + 1e-6)
        head = (shown > low + 0.12 * (high - low)).sum(axis=0)
        rows, columns = _extent(head.sum(axis=1)), _extent(head.sum(axis=0))
        between_rows, between_columns = volume.series.pixel_spacing_mm
        pad_rows = round(_MARGIN_MM / between_rows)
        pad_columns = round(_MARGIN_MM / between_columns)
        box = (
            max(columns[0] - pad_columns, 0),
            max(rows[0] - pad_rows, 0),
            min(columns[1] + pad_columns, shown.shape[2]),
            min(rows[1] + pad_rows, shown.shape[1]),
        )
        return cls(volume, saliency, (float(low), high), box)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the largest (width, height) with the anatomy's aspect ratio that fits."""
        left, upper, right, lower = self.box
        between_rows, between_columns = self.volume.series.pixel_spacing_mm
        extent = ((right - left) * between_columns, (lower - upper) * between_rows)
        scale = min(width / extent[0], height / extent[1])
        return round(extent[0] * scale), round(extent[1] * scale)

    def render(
        self, slice_index: int, crops: Sequence[Crop], width: int, height: int
    ) -> Image.Image:
        """Draw one slice with saliency, the outlines of `crops` and orientation letters."""
        size = self.size(width, height)
        grey = self._resample(self.volume.image, slice_index, size, Image.Resampling.BICUBIC)
        low, high = self.window
        grey = np.clip((grey - low) / (high - low), 0, 1) * 255
        heat = self._resample(self.saliency.image, slice_index, size, Image.Resampling.BILINEAR)
        picture = Image.fromarray(blend(grey, heat))
        draw = ImageDraw.Draw(picture)
        for crop in crops:
            corners = [self._place(corner, size) for corner in crop.corners_px]
            for colour, thickness in ((_BLACK, 5), (_OUTLINE, 2)):
                draw.line([*corners, corners[0]], fill=colour, width=thickness, joint="curve")
        self._letters(draw, size)
        return picture

    def _resample(
        self, image: sitk.Image, slice_index: int, size: tuple[int, int], how: Image.Resampling
    ) -> NDArray[np.float64]:
        plane = np.ascontiguousarray(
            sitk.GetArrayViewFromImage(image)[slice_index], dtype=np.float32
        )
        return np.asarray(Image.fromarray(plane).resize(size, how, box=self.box), dtype=np.float64)

    def _place(self, corner: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
        """Convert (column, row) of the slice, pixel centres at integers, to picture coordinates."""
        left, upper, right, lower = self.box
        return (
            (corner[0] + 0.5 - left) / (right - left) * size[0] - 0.5,
            (corner[1] + 0.5 - upper) / (lower - upper) * size[1] - 0.5,
        )

    def _letters(self, draw: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
        width, height = size
        right, bottom = edge_letters(self.volume.series)
        left, top = (_OPPOSITE[letter] for letter in (right, bottom))
        places = (
            ((6, height / 2), left, "lm"),
            ((width - 6, height / 2), right, "rm"),
            ((width / 2, 4), top, "ma"),
            ((width / 2, height - 4), bottom, "md"),
        )
        for place, letter, anchor in places:
            draw.text(
                place,
                letter,
                font=font(28),
                fill=_WHITE,
                anchor=anchor,
                stroke_width=2,
                stroke_fill=_BLACK,
            )


_OPPOSITE: Final = {"L": "R", "R": "L", "P": "A", "A": "P", "H": "F", "F": "H"}


def edge_letters(series: SelectedSeries) -> tuple[str, str]:
    """Return the patient directions in which rows and columns run (PS3.3 C.7.6.1.1.1).

    Returns
    -------
    tuple of str
        Letter of the right edge and of the bottom edge, e.g. ``("L", "P")``.
    """

    def letter(direction: Sequence[float]) -> str:
        axis = int(np.argmax(np.abs(direction)))
        return ("LR", "PA", "HF")[axis][0 if direction[axis] > 0 else 1]

    return letter(series.orientation[:3]), letter(series.orientation[3:])


def blend(grey: NDArray[np.float64], saliency: NDArray[np.float64]) -> RGBArray:
    """Overlay saliency (0-10) in colour on grey values (0-255); faint saliency is transparent."""
    level = np.clip(saliency / SALIENCY_MAXIMUM, 0, 1)
    position = np.linspace(0, 1, len(_PLASMA))
    colour = np.stack([np.interp(level, position, _PLASMA[:, i]) for i in range(3)], axis=-1)
    density = _DENSITY * np.clip((saliency - _FAINT) / (_FULL - _FAINT), 0, 1)[..., None]
    mixed = grey[..., None] * (1 - density) + colour * density
    return np.round(mixed).astype(np.uint8)


def colour_bar(width: int, height: int) -> Image.Image:
    """Draw the scale as it appears over mid-grey tissue, from 0 (left) to 10 (right)."""
    saliency = np.tile(np.linspace(0, SALIENCY_MAXIMUM, width), (height, 1))
    return Image.fromarray(blend(np.full(saliency.shape, 110.0), saliency))


def font(size: int) -> ImageFont.FreeTypeFont:
    """Load the typeface bundled with Pillow, the same on every machine; it has ASCII only."""
    typeface = ImageFont.load_default(size)
    if not isinstance(typeface, ImageFont.FreeTypeFont):
        raise Failed(
            "no-typeface", "Pillow was built without FreeType.", "Install the Pillow wheel."
        )
    return typeface


def _extent(profile: NDArray[np.int64]) -> tuple[int, int]:
    """Return the first and one past the last index whose count is not negligible."""
    filled = np.flatnonzero(profile > 0.02 * profile.max())
    return (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, len(profile))
