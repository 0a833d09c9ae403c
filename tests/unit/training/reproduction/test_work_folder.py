"""Work folder of a reproduction: one cohort, and jobs in one or several processes."""

from pathlib import Path

import pytest

from core.errors import ConfigurationError
from training.reproduction.work_folder import bind_to_cohort, run_in_processes


def test_work_folder_belongs_to_one_cohort(tmp_path: Path) -> None:
    bind_to_cohort(tmp_path / "work", {"seed": 1})
    bind_to_cohort(tmp_path / "work", {"seed": 1})
    with pytest.raises(ConfigurationError, match="another cohort"):
        bind_to_cohort(tmp_path / "work", {"seed": 2})


@pytest.mark.parametrize("processes", [1, 2])
def test_all_jobs_are_run_and_numbered(processes: int) -> None:
    lines = list(run_in_processes(str, [7, 8, 9], processes=processes))
    assert [line.split()[0] for line in lines] == ["1/3", "2/3", "3/3"]
    assert sorted(line.split()[1] for line in lines) == ["7", "8", "9"]
