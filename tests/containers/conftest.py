"""The stack of docker-compose.yml in real containers, made once for all tests of this folder."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from node.demonstration.run import SAMPLE_STUDY
from tests.containers.engine import running_engine
from tests.containers.images import Images
from tests.containers.sender import ADDRESS, AE_TITLE, outside_host
from tests.containers.stack import (
    ORTHANC,
    PROJECT,
    Stack,
    checkout,
    configure,
    selected_services,
)
from tests.support.builders.synthetic_studies import copy_study, generate_synthetic_study
from tests.support.paths import ROOT
from tests.support.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.containers.engine import Engine
    from tests.containers.sender import Sender

REPORT: Final = ROOT / "build" / "containers.md"


@dataclass
class Record:
    """What the tests measured, for the report at their end."""

    engine: str = ""
    images: Images | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report."""
        assert self.images is not None
        yield "# Containers\n"
        yield f"Last output of `make container-test`. {self.engine}\n"
        yield "What had to differ from what a hospital runs:\n"
        yield from (f"- {difference}" for difference in self.images.differences)
        yield "\n| image | MB | made or pulled in |"
        yield "|---|---|---|"
        for image, size in self.images.megabytes.items():
            seconds = self.images.seconds.get(image)
            yield f"| `{image}` | {size} | {f'{seconds:.0f} s' if seconds else 'reused'} |"
        yield "\n| step | seconds |"
        yield "|---|---|"
        yield from (f"| {step} | {seconds:.1f} |" for step, seconds in self.seconds.items())


RECORD: Final = pytest.StashKey[Record]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin the record."""
    config.stash[RECORD] = Record()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the record and write it to a file."""
    record = config.stash[RECORD]
    if record.images is None:
        return
    text = "\n".join(record.lines()) + "\n"
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(text)
    terminalreporter.section("containers")
    terminalreporter.write(text)


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Record:
    """What the tests measured."""
    return request.config.stash[RECORD]


@pytest.fixture(scope="session")
def engine(record: Record) -> Iterator[Engine]:
    """The container engine; nothing of ours is left in it."""
    with running_engine() as found:
        record.engine = (
            f"Engine {found.version}{' started by the test' if found.is_own else ''}, "
            f"Compose {found.compose_version}."
        )
        yield found


@pytest.fixture(scope="session")
def port() -> int:
    """Published port of the receiver."""
    return free_port()


@pytest.fixture(scope="session")
def sender(port: int) -> Iterator[Sender]:
    """A modality on another host."""
    with outside_host(port) as outside:
        yield outside


@pytest.fixture(scope="session")
def stack(
    engine: Engine,
    record: Record,
    sender: Sender,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """The running stack, healthy."""
    folder = tmp_path_factory.mktemp("hospital")
    checkout(folder)
    images = record.images = Images(engine)
    services = selected_services(folder)
    images.prepare(folder, services)
    configure(folder, f"{AE_TITLE}@{ADDRESS},ORTHANC@{ORTHANC}", images, port=sender.port)
    stack = Stack(engine, folder)
    stack.compose("down", "--volumes")  # what a run that was killed has left
    began = time.monotonic()
    try:
        try:
            stack.compose("up", "--detach", "--no-build")
        except RuntimeError as error:
            raise RuntimeError("\n".join([str(error), *map(stack.logs, services)])) from error
        stack.wait_healthy(*[name for name in services if name != "migrations"])
        record.seconds["up, cold, until every service is healthy"] = time.monotonic() - began
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "20")
        assert_nothing_left(engine)


def assert_nothing_left(engine: Engine) -> None:
    """Check that no container, volume or network of the project exists."""
    mine = f"label=com.docker.compose.project={PROJECT}"
    for kind in (["ps", "--all"], ["volume", "ls"], ["network", "ls"]):
        assert engine.docker(*kind, "--quiet", "--filter", mine) == ""


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample study; a synthetic one where the sample data does not exist."""
    if SAMPLE_STUDY.is_dir():
        return SAMPLE_STUDY
    return generate_synthetic_study(tmp_path_factory.mktemp("synthetic"), seed=20)


@dataclass(frozen=True)
class Study:
    """A study to be sent, with UIDs of its own."""

    folder: Path
    uid: str


@pytest.fixture
def study(original: Path, tmp_path: Path) -> Study:
    """A study that the node has not seen."""
    return Study(tmp_path / "study", copy_study(original, tmp_path / "study"))


@pytest.fixture
def studies(original: Path, tmp_path: Path) -> list[Study]:
    """Three studies that the node has not seen."""
    folders = [tmp_path / f"study-{number}" for number in range(3)]
    return [Study(folder, copy_study(original, folder)) for folder in folders]
