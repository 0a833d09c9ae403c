"""Three DICOM validators, as functions from a file to the list of errors in it.

dciodvfy (dicom3tools) checks IODs, not templates; dsrdump (DCMTK) reads an SR strictly; PixelMed's
DicomSRValidator alone checks TID 1500, but not the evidence sequences. Use all three.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_JAR: Final = Path("/usr/share/java/pixelmed.jar")
"""Its manifest names the other archives that it needs."""
_SERVER: Final = Path(__file__).with_name("PixelMedServer.java")
_HARMLESS: Final = (
    "Warning",
    "Found ",
    "Root Template Validation Complete",
    "IOD validation complete",
)
_JVM: Final = (
    # The stylesheets overrun the JVM's default stack and its limits on XPath.
    "-Xss128m",
    "-Xmx1g",
    "-Djdk.xml.xpathExprOpLimit=0",
    "-Djdk.xml.xpathTotalOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
    # It runs for seconds: thorough compilation and parallel collection do not pay off.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
)


def dciodvfy(path: Path) -> list[str]:
    """Errors of the IOD check, without warnings."""
    return [line for line in dciodvfy_messages(path) if line.startswith("Error")]


def dciodvfy_messages(path: Path) -> list[str]:
    """All messages of dciodvfy about a file, including warnings."""
    run = subprocess.run(["dciodvfy", path], capture_output=True, check=False, timeout=120)
    lines = (run.stdout + run.stderr).decode("utf-8", "replace").splitlines()
    assert lines, "dciodvfy printed nothing: it did not run"
    return lines


def dsrdump(path: Path) -> list[str]:
    """Errors and warnings of DCMTK's SR parser."""
    run = subprocess.run(["dsrdump", path], capture_output=True, check=False, timeout=120)
    lines = run.stderr.decode("utf-8", "replace").splitlines()
    # DCMTK converts few character sets and warns about the others; the file is not at fault.
    problems = [
        line
        for line in lines
        if line.startswith(("E:", "F:", "W:")) and not re.search("Specific ?Character ?Set", line)
    ]
    return problems or [f"exit status {run.returncode}"] * (run.returncode != 0)


class PixelMed:
    """PixelMed's template check in a process that is started once; also a context manager.

    The process starts in the background, so that creating this object does not wait for the JVM.
    """

    def __init__(self) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            ["java", *_JVM, "-cp", _JAR, _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def errors(self, path: Path) -> list[str]:
        """Errors of the template check."""
        lines = self.messages(path)
        # Not every error starts with "Error": any line but progress and warnings is one.
        errors = [line for line in lines if not line.startswith(_HARMLESS)]
        # For an unknown template the validator reports nothing.
        complete = "Root Template Validation Complete" in lines
        return errors or ["no template was checked"] * (not complete)

    def all_errors(self, paths: Sequence[Path]) -> dict[Path, list[str]]:
        """Errors of the template check, for each file."""
        return {path: self.errors(path) for path in paths}

    def messages(self, path: Path) -> list[str]:
        """All messages of PixelMed about a file, including warnings and progress."""
        questions, answers = self._process.stdin, self._process.stdout
        assert questions is not None
        assert answers is not None
        questions.write(f"{path}\n".encode())
        questions.flush()
        lines: list[str] = []
        for answer in answers:
            line = answer.decode("utf-8", "replace").rstrip("\n")
            if line == f"VALIDATED {path}":
                return [line for line in lines if line]
            lines.append(line)
        self._complaints.seek(0)
        raise AssertionError(self._complaints.read().decode("utf-8", "replace"))

    def stop(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()
        self._complaints.close()


@pytest.fixture(scope="session")
def pixelmed() -> Iterator[PixelMed]:
    """PixelMed's validator, started once for the whole run."""
    with PixelMed() as started:
        yield started
