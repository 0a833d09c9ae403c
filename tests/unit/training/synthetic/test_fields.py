"""Random fields, interpolation and rotation."""

import numpy as np
import pytest

from training.synthetic.fields import interpolate, rotation, smooth_noise


def test_smooth_noise_has_the_documented_amplitude_and_is_smooth() -> None:
    field = smooth_noise(np.random.default_rng(0), (100, 120, 110), fwhm=5, step=2.5)
    assert field.shape == (100, 120, 110)
    assert field.std() == pytest.approx(0.17, abs=0.01)
    assert np.diff(field, axis=2).std() < field.std() / 2


def test_interpolation_is_exact_for_a_linear_field_and_zero_outside() -> None:
    z, y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (4, 5, 6)), indexing="ij")
    field = np.stack([x, 10 * y + z], axis=-1)
    found = interpolate(field, np.array([[1.25, 2.5, 0.75], [-5.0, 0, 0]]))
    assert found == pytest.approx(np.array([[1.25, 25.75], [0, 0]]))


def test_rotation_is_about_x_then_y_then_z() -> None:
    assert rotation((0, 0, 90)) @ [1, 0, 0] == pytest.approx([0, 1, 0])
    assert rotation((90, 0, 90)) @ [0, 1, 0] == pytest.approx([0, 0, 1])
