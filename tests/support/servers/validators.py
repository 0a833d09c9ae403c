"""Three DICOM validators: each returns the errors it finds in a file, none for a valid one.

dciodvfy (dicom3tools) checks IODs, not templates; dsrdump (DCMTK) reads an SR strictly; PixelMed's
DicomSRValidator alone checks TID 1500, but not the evidence. Use all three.
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
"""Names the other archives that it needs itself."""
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
    # It runs for seconds: compiling thoroughly and collecting in parallel never pay.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
)


def dciodvfy(path: Path) -> list[str]:
    """Errors of the IOD check; its warnings are left out."""
    return [line for line in dciodvfy_messages(path) if line.startswith("Error")]


def dciodvfy_messages(path: Path) -> list[str]:
    """Everything that dciodvfy says about a file, warnings included."""
    run = subprocess.run(["dciodvfy", path], capture_output=True, check=False, timeout=120)
    lines = (run.stdout + run.stderr).decode("utf-8", "replace").splitlines()
    assert lines, "dciodvfy said nothing: it did not run"
    return lines


def dsrdump(path: Path) -> list[str]:
    """Errors and warnings of DCMTK's SR parser."""
    run = subprocess.run(["dsrdump", path], capture_output=True, check=False, timeout=120)
    lines = run.stderr.decode("utf-8", "replace").splitlines()
    # DCMTK converts few character sets and says so of the others; that is no fault of the file.
    problems = [
        line
        for line in lines
        if line.startswith(("E:", "F:", "W:")) and not re.search("Specific ?Character ?Set", line)
    ]
    return problems or [f"exit status {run.returncode}"] * (run.returncode != 0)


class PixelMed:
    """The template check as a process that is started once; also a context manager.

    It starts in the background: what comes before the first file is validated costs no time.
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
        # Not every error starts with "Error": whatever is neither progress nor a warning is one.
        errors = [line for line in lines if not line.startswith(_HARMLESS)]
        # Without a template that it knows, the validator has nothing to say.
        complete = "Root Template Validation Complete" in lines
        return errors or ["no template was checked"] * (not complete)

    def all_errors(self, paths: Sequence[Path]) -> dict[Path, list[str]]:
        """Errors of the template check, for each file."""
        return {path: self.errors(path) for path in paths}

    def messages(self, path: Path) -> list[str]:
        """Everything that PixelMed says about a file, warnings and progress included."""
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
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._complaints.close()


@pytest.fixture(scope="session")
def pixelmed() -> Iterator[PixelMed]:
    """PixelMed's validator, started once for the whole suite."""
    with PixelMed() as started:
        yield started
