"""Three DICOM validators as functions: each returns the errors it finds, none for a valid file.

dciodvfy (dicom3tools) checks IODs, not templates; dsrdump (DCMTK) reads an SR strictly; PixelMed's
DicomSRValidator alone checks TID 1500, but not the evidence. Use all three.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_JARS: Final = Path("/usr/share/java")
_BATCH: Final = Path(__file__).with_name("PixelMedBatch.java")
_HARMLESS: Final = (
    "Warning",
    "Found ",
    "Root Template Validation Complete",
    "IOD validation complete",
)
# The stylesheets overrun the JVM's default stack and its limits on XPath.
_JVM: Final = (
    "-Xss128m",
    "-Xmx2g",
    "-Djdk.xml.xpathExprOpLimit=0",
    "-Djdk.xml.xpathTotalOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
)


def dciodvfy(path: Path) -> list[str]:
    """Errors of the IOD check; its warnings are left out."""
    run = subprocess.run(["dciodvfy", path], capture_output=True, check=False, timeout=120)
    lines = (run.stdout + run.stderr).decode("utf-8", "replace").splitlines()
    assert lines, "dciodvfy said nothing: it did not run"
    return [line for line in lines if line.startswith("Error")]


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


def pixelmed(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """Errors of the template check for each file; one Java start for all."""
    classpath = os.pathsep.join(str(jar) for jar in sorted(_JARS.glob("*.jar")))
    run = subprocess.run(
        ["java", *_JVM, "-cp", classpath, _BATCH, *paths],
        capture_output=True,
        check=False,
        timeout=560,
    )
    assert run.returncode == 0, run.stderr.decode("utf-8", "replace")
    found: dict[Path, list[str]] = {}
    for block in run.stdout.decode("utf-8", "replace").split("FILE ")[1:]:
        name, *lines = block.splitlines()
        # Not every error starts with "Error": whatever is neither progress nor a warning is one.
        errors = [line for line in lines if line and not line.startswith(_HARMLESS)]
        # Without a template that it knows, the validator has nothing to say.
        complete = "Root Template Validation Complete" in lines
        found[Path(name)] = errors or ["no template was checked"] * (not complete)
    return found
