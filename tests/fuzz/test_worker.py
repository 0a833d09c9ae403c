"""The first examples of the campaign against the worker; see `tests.fuzz.worker`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.worker import Campaign

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.sample_data
@pytest.mark.filterwarnings("ignore")
def test_changed_files_end_as_reasons(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "study")
    with closing(campaign.reader):
        for number in range(40):
            campaign.example(number, seed=1)
    assert sum(campaign.seen.values()) >= 40
    assert campaign.seen["read: unreadable-header"] > 0
    assert campaign.seen["read: selected"] > 0
