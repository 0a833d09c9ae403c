"""A Triton server for the whole run, and servers with other models for single tests."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from node.embedded.triton import EmbeddedTriton

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def triton_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """Triton with the models of the repository."""
    folder = tmp_path_factory.mktemp("triton")
    with EmbeddedTriton(folder / "work", folder / "triton.log") as server:
        yield server


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Path], EmbeddedTriton]]:
    """Function that starts a Triton for one test with the models of a folder."""
    started: list[EmbeddedTriton] = []

    def start(models_dir: Path) -> EmbeddedTriton:
        work_dir = tmp_path / f"triton-{len(started)}"
        server = EmbeddedTriton(work_dir, tmp_path / f"{work_dir.name}.log", models_dir, threads=1)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        if server.pid is not None:
            os.killpg(server.pid, signal.SIGKILL)  # an orderly end takes two seconds
        server.stop()
