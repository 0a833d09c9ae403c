"""Assembly of the model repository that the embedded Triton serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.errors import ConfigurationError
from node.embedded.triton import assemble_models

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_without_networks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rating").mkdir()
    with pytest.raises(ConfigurationError, match=r"holds no model"):
        assemble_models(tmp_path, tmp_path / "served")
