"""Assembly of the model repository that the embedded Triton serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.errors import ConfigurationError
from node.embedded.triton import assemble_models
from tests.support.builders.source_models import add_version

if TYPE_CHECKING:
    from pathlib import Path


def test_all_versions_are_assembled_and_counted(source_models: Path, tmp_path: Path) -> None:
    add_version(source_models, "rating", "2")
    assert assemble_models(source_models, tmp_path / "served") == 3
    for version in ("rating/1", "rating/2", "severity/1"):
        network = tmp_path / "served" / version / "model.onnx"
        assert network.samefile(source_models / version / "model.onnx")


def test_a_network_that_was_changed_is_refused(source_models: Path, tmp_path: Path) -> None:
    network = source_models / "severity" / "1" / "model.onnx"
    network.write_bytes(network.read_bytes() + b"\0")
    with pytest.raises(ConfigurationError, match="is not the file"):
        assemble_models(source_models, tmp_path / "served")


def test_a_folder_without_networks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rating").mkdir()
    with pytest.raises(ConfigurationError, match=r"holds no model"):
        assemble_models(tmp_path, tmp_path / "served")
