"""What the embedded Triton says when a part of it is missing; its running is tested elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from core.errors import ConfigurationError
from node.embedded.triton import EmbeddedTriton, assemble_models

if TYPE_CHECKING:
    from pathlib import Path


def environment(folder: Path, **answer: Any) -> Path:
    """An environment whose interpreter describes itself by `answer`."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    python.chmod(0o755)
    return folder


def start(tmp_path: Path, where: Path) -> None:
    EmbeddedTriton(tmp_path / "work", tmp_path / "triton.log", environment=where).start()


def test_a_missing_environment_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"make \.triton-env"):
        start(tmp_path, tmp_path / "nowhere")


def test_a_missing_libpython_names_the_debian_package(tmp_path: Path) -> None:
    where = environment(
        tmp_path / "env", version="3.11", packages=str(tmp_path), folders=["", str(tmp_path)]
    )
    with pytest.raises(ConfigurationError, match=r"Debian package libpython3\.11"):
        start(tmp_path, where)


def test_an_interpreter_without_a_matching_server_is_named(tmp_path: Path) -> None:
    (tmp_path / "libpython3.99.so.1.0").touch()
    where = environment(
        tmp_path / "env", version="3.99", packages=str(tmp_path), folders=[str(tmp_path)]
    )
    with pytest.raises(ConfigurationError, match=r"no Triton for Python 3\.99"):
        start(tmp_path, where)


def test_a_folder_without_networks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rating").mkdir()
    with pytest.raises(ConfigurationError, match=r"no model"):
        assemble_models(tmp_path, tmp_path / "served")
