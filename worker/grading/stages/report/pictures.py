"""Pictures for the radiologist: a summary page and one page for each graded slice.

They are legible at 512 pixels. Study date and accession number are burned into the summary page;
the patient's name is not, because burned-in text cannot be removed and every viewer shows the name
from the header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw

from core.results import Grade, ImageRating, Level, Severity
from worker.grading.stages.report.overlay import Colour, RGBArray, View, colour_bar, font

if TYPE_CHECKING:
    from worker.grading.records import SaliencyMap, Volume

_WIDTH: Final = 1024
_GAP: Final = 10
_PANEL: Final = (328, 420)
_PAGE: Final = (768, 800)
_TEXT: Final[Colour] = (255, 255, 255)
_MUTED: Final[Colour] = (190, 190, 190)
_WARNING: Final[Colour] = (255, 214, 0)
_SCALE_MEANING: Final = (
    "Shown inside the brain only; 10 is the maximum of this scan: location, not amount."
)
_SEVERITY_NAMES: Final = {
    Severity.NONE_TO_MILD: "none-to-mild",
    Severity.MODERATE_TO_SEVERE: "moderate-to-severe",
}


def render_summary(
    volume: Volume, grade: Grade, saliency: SaliencyMap, *, study_date: str, accession_number: str
) -> RGBArray:
    """Draw the three graded slices side by side with rating and severity.

    Parameters
    ----------
    volume, grade, saliency
    study_date, accession_number : str
        ``YYYYMMDD`` and free text; empty if the source does not state them.

    Returns
    -------
    ndarray, shape (height, width, 3), uint8
    """
    view = _view(volume, grade, saliency)
    panels = [
        view.render(images[0].crop.slice_index, [i.crop for i in images], *_PANEL)
        for images in _levels(grade).values()
    ]
    page = _Page(_WIDTH)
    page.line(_rating_line(grade), 46, _TEXT)
    page.line(_severity_line(grade), 34, _TEXT)
    page.line(_agreement_line(grade), 34, _MUTED if grade.models_agree else _WARNING)
    page.line(_study_line(study_date, accession_number), 28, _MUTED)
    page.space(12)
    lefts = [_GAP + n * (_PANEL[0] + _GAP) for n in range(len(panels))]
    page.columns(
        [(left, f"{level.value} slice") for left, level in zip(lefts, _levels(grade), strict=True)],
        28,
        _MUTED,
    )
    page.pictures(
        [
            (left + (_PANEL[0] - panel.width) // 2, panel)
            for left, panel in zip(lefts, panels, strict=True)
        ]
    )
    page.columns(
        [
            (
                left + column * _PANEL[0] // 2,
                f"{i.crop.side.value}: {i.rating} (p {i.probability:.2f})",
            )
            for left, images in zip(lefts, _levels(grade).values(), strict=True)
            for column, i in enumerate(images)
        ],
        28,
        _TEXT,
    )
    page.space(8)
    page.scale()
    page.paragraph(grade.intended_use.statement, 28, _WARNING)
    return page.pixels()


def render_slice(volume: Volume, grade: Grade, saliency: SaliencyMap, level: Level) -> RGBArray:
    """Draw one graded slice with its two ratings.

    Returns
    -------
    ndarray, shape (height, width, 3), uint8
    """
    images = _levels(grade)[level]
    view = _view(volume, grade, saliency)
    panel = view.render(images[0].crop.slice_index, [i.crop for i in images], *_PAGE)
    page = _Page(_PAGE[0])
    page.line(f"EPVS, basal ganglia: {level.value} slice", 32, _TEXT)
    page.columns(
        [
            (
                _GAP + column * _PAGE[0] // 2,
                f"{i.crop.side.value}: rating {i.rating} (p {i.probability:.2f})",
            )
            for column, i in enumerate(images)
        ],
        30,
        _TEXT,
    )
    page.space(6)
    page.pictures([((_PAGE[0] - panel.width) // 2, panel)])
    page.space(8)
    page.scale()
    page.paragraph(grade.intended_use.statement, 26, _WARNING)
    return page.pixels()


class _Page:
    """A black page of fixed width that is filled from the top and cropped to its content."""

    def __init__(self, width: int) -> None:
        self._image = Image.new("RGB", (width, 3 * width))
        self._draw = ImageDraw.Draw(self._image)
        self._top = _GAP

    def space(self, height: int) -> None:
        self._top += height

    def line(self, text: str, size: int, colour: Colour) -> None:
        self.columns([(_GAP, text)], size, colour)

    def columns(self, texts: list[tuple[int, str]], size: int, colour: Colour) -> None:
        for left, text in texts:
            self._draw.text((left, self._top), text, font=font(size), fill=colour)
        self._top += round(1.3 * size)

    def paragraph(self, text: str, size: int, colour: Colour) -> None:
        line = ""
        for word in text.split():
            longer = f"{line} {word}".strip()
            if font(size).getlength(longer) > self._image.width - 2 * _GAP:
                self.line(line, size, colour)
                longer = word
            line = longer
        self.line(line, size, colour)

    def pictures(self, pictures: list[tuple[int, Image.Image]]) -> None:
        for left, picture in pictures:
            self._image.paste(picture, (left, self._top))
        self._top += max(picture.height for _, picture in pictures) + 4

    def scale(self) -> None:
        """Draw the colour bar with its end values and their meaning."""
        size, height = 28, 30
        label = "Grad-CAM saliency  0"
        left = _GAP + round(font(size).getlength(label)) + 12
        bar = colour_bar(self._image.width - left - 60, height)
        self._draw.text((_GAP, self._top), label, font=font(size), fill=_MUTED)
        self._image.paste(bar, (left, self._top + 2))
        self._draw.text((left + bar.width + 12, self._top), "10", font=font(size), fill=_MUTED)
        self._top += height + 8
        self.paragraph(_SCALE_MEANING, 26, _MUTED)
        self.space(8)

    def pixels(self) -> RGBArray:
        return np.asarray(self._image.crop((0, 0, self._image.width, self._top + _GAP)))


def _view(volume: Volume, grade: Grade, saliency: SaliencyMap) -> View:
    indices = sorted({image.crop.slice_index for image in grade.images})
    return View.around_head(volume, saliency, indices)


def _levels(grade: Grade) -> dict[Level, list[ImageRating]]:
    """Group the images by level, inferior first; within a level, left to right as displayed."""
    levels: dict[Level, list[ImageRating]] = {level: [] for level in Level}
    for image in grade.images:
        levels[image.crop.level].append(image)
    for images in levels.values():
        images.sort(key=lambda image: float(np.mean([c for c, _ in image.crop.corners_px])))
    return levels


def _study_line(study_date: str, accession_number: str) -> str:
    year, month, day = study_date[:4], study_date[4:6], study_date[6:]
    date = f"of {year}-{month}-{day}" if study_date else "without a date"
    # The typeface has ASCII only; a box in place of a letter would look like a fault.
    number = accession_number.encode("ascii", "replace").decode("ascii")
    return f"Study {date}; accession number: {number or 'none'}"


def _rating_line(grade: Grade) -> str:
    meaning = "no EPVS seen" if grade.rating == 0 else f"{grade.count_range} EPVS"
    return f"Basal ganglia rating {grade.rating} of 4: {meaning}"


def _severity_line(grade: Grade) -> str:
    return (
        f"{_SEVERITY_NAMES[grade.severity]}: P(at least 10 EPVS) = {grade.severity_probability:.2f}"
    )


def _agreement_line(grade: Grade) -> str:
    agreement = "models agree" if grade.models_agree else "MODELS DISAGREE"
    return f"{agreement}; majority rating {grade.majority_rating}"
