"""Cohort of a site: no folder is created or changed if the cohort cannot be built."""

from pathlib import Path

import pytest

from core.errors import ConfigurationError
from training.cohorts.site import build_site_cohort
from training.cohorts.site_table import IMAGES, BadRows


def test_no_folder_is_created_for_an_invalid_file(tmp_path: Path) -> None:
    file = tmp_path / "readings.csv"
    file.write_text("subject,path\n", encoding="utf-8")
    with pytest.raises(BadRows, match="missing column"):
        list(build_site_cohort(file, tmp_path / "cohort"))
    assert not (tmp_path / "cohort").exists()


@pytest.mark.parametrize("name", ["cohort.json", "notes.txt"])
def test_folder_in_use_for_something_else_is_rejected(name: str, tmp_path: Path) -> None:
    file = tmp_path / "readings.csv"
    file.write_text(",".join(("subject", "path", *IMAGES)) + "\n", encoding="utf-8")
    folder = tmp_path / "cohort"
    folder.mkdir()
    (folder / name).write_text('{"kind": "synthetic"}')
    with pytest.raises(ConfigurationError, match="is not empty"):
        list(build_site_cohort(file, folder))
    assert (folder / name).read_text() == '{"kind": "synthetic"}'
    assert len(list(folder.iterdir())) == 1
