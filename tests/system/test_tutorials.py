"""Every command of the tutorials, run as a reader would, in their order."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from node.embedded.process import accepts_connections
from tests.support.paths import ROOT
from tests.support.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_BLOCK = re.compile(r"(?:<!-- (\w+) -->\n)?```bash\n(.*?)```", re.DOTALL)
TIMEOUT_S = 240.0


@dataclass(frozen=True)
class Block:
    """One block of commands of a page."""

    commands: str
    kind: str = ""
    """Empty, ``background`` (runs until Ctrl-C) or ``prerequisites`` (installed already)."""


def read_blocks(page: str) -> list[Block]:
    """Every block of commands of a page of docs/."""
    found = _BLOCK.findall((ROOT / "docs" / page).read_text())
    return [Block(commands, kind) for kind, commands in found]


class Reader:
    """Runs the blocks of a page in a folder of its own, on free ports.

    Parameters
    ----------
    folder : Path
        Has what the page uses of a checkout.
    ports : mapping
        For each port of the page, the port to use instead.
    """

    def __init__(self, folder: Path, ports: Mapping[str, int]) -> None:
        self.folder = folder
        self.ports = ports
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EPVS_")}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {**kept, "PATH": path, "PYTHONPATH": str(ROOT)}
        for name in ("docker", "triton_models"):
            shutil.copytree(ROOT / name, folder / name)

    def run(self, block: Block) -> str:
        """Run a block to its end; return what it printed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._adapted(block)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, f"{block.commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, block: Block, is_ready: Callable[[], bool]) -> subprocess.Popen[bytes]:
        """Start a block that runs until Ctrl-C, and wait until it is ready."""
        log = self.folder / "background.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec env {self._adapted(block)}"],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + TIMEOUT_S
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                interrupt(process)
                pytest.fail(f"{block.commands}\n{log.read_text()[-4000:]}")
            time.sleep(0.2)
        return process

    def _adapted(self, block: Block) -> str:
        text = block.commands
        for port, replacement in self.ports.items():
            text = text.replace(port, str(replacement))
        return text


def interrupt(process: subprocess.Popen[bytes]) -> int:
    """Press Ctrl-C; return the exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What the test starts ends with it, the last first."""
    with ExitStack() as started:
        yield started


def check_prerequisites(block: Block) -> None:
    """Its packages are installed and its targets exist; other tests run the same targets."""
    for line in block.commands.splitlines():
        if line.startswith("apt-get install"):
            for package in line.split()[2:]:
                if not package.startswith("-") and not package.startswith("python3"):
                    subprocess.run(["dpkg-query", "-W", package], check=True, capture_output=True)
        elif line.startswith("make "):
            target = line.split()[1]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        else:
            assert line == ". .venv/bin/activate"


def test_pacs_administrator(tmp_path: Path, stack: ExitStack) -> None:
    dicom, http, node = free_port(), free_port(), free_port()
    reader = Reader(tmp_path, {"4243": dicom, "8043": http, "11112": node})
    reader.environment["EPVS_PORT"] = str(node)
    running = tmp_path / "data" / "embedded.json"
    ready = iter([lambda: accepts_connections(http) and accepts_connections(dicom), running.exists])
    outputs = []
    for block in read_blocks("tutorial-pacs.md"):
        if block.kind == "prerequisites":
            check_prerequisites(block)
        elif block.kind == "background":
            stack.callback(interrupt, reader.start(block, next(ready)))
        else:
            outputs.append(reader.run(block))
    doctor, sent, listed, series, shown = outputs[1:]
    assert f"destination ORTHANC@127.0.0.1:{dicom}" in doctor
    assert "FAIL" not in doctor
    assert "instances stored" in sent
    assert "delivered" in listed
    for modality in ("MR", "SR", "OT"):
        assert f'"Modality" : "{modality}"' in series
    assert "EPVS grade" in series
    assert "chain intact" in shown


def test_site_that_trains(tmp_path: Path) -> None:
    reader = Reader(tmp_path, {})
    outputs = []
    for block in read_blocks("tutorial-training.md"):
        if block.kind == "prerequisites":
            check_prerequisites(block)
        else:
            outputs.append(reader.run(block))
    readings, _, _, exported, graded = outputs
    assert "subject,path,inferior_L" in readings
    assert "wrote version" in exported
    assert "Tutorial of our site. Not for clinical use." in " ".join(graded.split())
    assert (tmp_path / "data/tutorial/demo/result/report.dcm").is_file()
