"""One receiver of each data path for the tests that leave it healthy; the others start their own.

Every test here that starts or is given a receiver runs twice: on the streaming path and on the
plain one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.servers.receiver import ReceiverProcess, run_receiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="package", params=["streaming", "plain"])
def shared_receiver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ReceiverProcess]:
    """A receiver that runs as long as these tests do."""
    with run_receiver(tmp_path_factory.mktemp("node"), data_path=request.param) as process:
        yield process


@pytest.fixture
def receiver(shared_receiver: ReceiverProcess, sqlite_template: Path) -> ReceiverProcess:
    """A receiver that has neither stored nor refused anything yet."""
    shared_receiver.forget(sqlite_template)
    return shared_receiver


@pytest.fixture(params=["streaming", "plain"])
def data_path(request: pytest.FixtureRequest) -> str:
    """For the receivers that a test starts itself."""
    return str(request.param)
