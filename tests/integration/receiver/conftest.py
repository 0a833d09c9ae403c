"""One receiver for the tests that leave it healthy; the others start their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers.receiver import ReceiverProcess, run_receiver

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    """A receiver of its own for each test."""
    with run_receiver(tmp_path_factory.mktemp("node")) as process:
        yield process
