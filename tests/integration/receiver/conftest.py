"""One receiver for the tests that leave it healthy; the others start their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.servers.receiver import ReceiverProcess, run_receiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="package")
def shared_receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    """A receiver that runs as long as these tests do."""
    with run_receiver(tmp_path_factory.mktemp("node")) as process:
        yield process


@pytest.fixture
def receiver(shared_receiver: ReceiverProcess, sqlite_template: Path) -> ReceiverProcess:
    """A receiver that has neither stored nor refused anything yet."""
    shared_receiver.forget(sqlite_template)
    return shared_receiver
