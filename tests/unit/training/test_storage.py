"""Atomic file writes."""

from pathlib import Path

import numpy as np
import pytest

from training.storage import atomic_write, write_arrays, write_json


def test_failed_write_leaves_the_previous_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.json"
    write_json(target, {"a": 1})

    def fail() -> None:
        with atomic_write(target) as path:
            path.write_text("half of it")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == '{"a": 1}\n'


def test_arrays_are_read_back_and_no_other_npz_file_is_left(tmp_path: Path) -> None:
    write_arrays(tmp_path / "x.npz", values=np.arange(3))
    with np.load(tmp_path / "x.npz") as stored:
        assert stored["values"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
