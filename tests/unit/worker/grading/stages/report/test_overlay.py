"""Geometry, orientation and legibility of a rendered slice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from tests.support.builders.sources import SPACING, Inputs, classic, inputs
from worker.grading.stages.report.overlay import View, blend, edge_letters

if TYPE_CHECKING:
    from worker.grading.records import SaliencyMap, Volume


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return inputs(classic(tmp_path_factory.mktemp("source")))


def marked(volume: Volume, saliency: SaliencyMap, k: int, row: int, column: int) -> View:
    """Return a view whose saliency is one voxel of the slice."""
    field = np.zeros_like(sitk.GetArrayFromImage(saliency.image))
    field[k, row, column] = 10
    image = sitk.GetImageFromArray(field)
    image.CopyInformation(saliency.image)
    return View.around_head(volume, replace(saliency, image=image), [k])


def centre_of_colour(picture: Image.Image) -> tuple[float, float]:
    pixels = np.asarray(picture).astype(int)
    coloured = pixels.max(axis=2) - pixels.min(axis=2)
    rows, columns = np.mgrid[: coloured.shape[0], : coloured.shape[1]]
    return (
        float((columns * coloured).sum() / coloured.sum()),
        float((rows * coloured).sum() / coloured.sum()),
    )


@pytest.mark.parametrize(("row", "column"), [(30, 28), (55, 51)])
def test_saliency_lies_on_its_voxel(given: Inputs, row: int, column: int) -> None:
    view = marked(given.volume, given.saliency, 3, row, column)
    picture = view.render(3, [], 600, 600)
    left, upper, right, lower = view.box
    scale = (picture.width / (right - left), picture.height / (lower - upper))
    x, y = centre_of_colour(picture)
    assert (x + 0.5) / scale[0] + left == pytest.approx(column + 0.5, abs=0.2)
    assert (y + 0.5) / scale[1] + upper == pytest.approx(row + 0.5, abs=0.2)


def test_outline_surrounds_the_voxels_of_the_crop(given: Inputs) -> None:
    crop = given.grade.images[0].crop
    inside = np.mean(crop.corners_px, axis=0)
    view = marked(given.volume, given.saliency, 3, round(inside[1]), round(inside[0]))
    plain, outlined = (np.asarray(view.render(3, crops, 600, 600)) for crops in ([], [crop]))
    rows, columns = np.nonzero((plain != outlined).any(axis=2))
    x, y = centre_of_colour(Image.fromarray(plain))
    assert (columns.min() + columns.max()) / 2 == pytest.approx(x, abs=8)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(y, abs=8)


def test_aspect_ratio_is_that_of_the_anatomy(given: Inputs) -> None:
    view = View.around_head(given.volume, given.saliency, [3])
    left, upper, right, lower = view.box
    width, height = view.size(500, 500)
    true = ((right - left) * SPACING[1]) / ((lower - upper) * SPACING[0])
    assert width / height == pytest.approx(true, rel=0.01)
    assert max(width, height) == 500


@pytest.mark.parametrize(
    ("orientation", "letters"),
    [
        ((1, 0, 0, 0, 1, 0), ("L", "P")),
        ((-1, 0, 0, 0, 1, 0), ("R", "P")),
        ((0.99, -0.08, 0.03, 0.07, 0.99, 0.09), ("L", "P")),
        ((0, 1, 0, 1, 0, 0), ("P", "L")),
    ],
)
def test_letters_follow_the_orientation(
    given: Inputs,
    orientation: tuple[float, float, float, float, float, float],
    letters: tuple[str, str],
) -> None:
    series = replace(given.volume.series, orientation=orientation)
    assert edge_letters(series) == letters


def test_faint_saliency_is_transparent() -> None:
    grey = np.full((1, 3), 100.0)
    shown = blend(grey, np.array([[0.0, 1.4, 9.0]]))
    assert (shown[0, :2] == 100).all()
    assert np.ptp(shown[0, 2]) > 60


def test_luminance_increases_with_saliency() -> None:
    """The overlay is therefore legible with any colour blindness and in black-and-white print."""
    shown = blend(np.full((1, 13), 60.0), np.linspace(4, 10, 13)[None]).astype(float)
    luminance = shown[0] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()


def test_an_empty_slice_does_not_break_the_view(given: Inputs) -> None:
    blank = sitk.Image(given.volume.image.GetSize(), sitk.sitkFloat32)
    volume = replace(given.volume, image=blank)
    assert View.around_head(volume, given.saliency, [3]).render(3, [], 100, 100).width > 0
