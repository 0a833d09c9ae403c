"""Sending of DICOM files by C-STORE, with the worker's SCU and a progress display."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import EpvsError
from node import display
from node.components import run_module

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def send(paths: Sequence[Path], target: str) -> int:
    """Send every file under `paths` to `target` (``AE@host:port``); return the number stored.

    Raises
    ------
    EpvsError
        A path does not exist, or not every file was stored; gives the status of each refused
        file.
    """
    files = list_files(paths)
    stored, refused = 0, []
    with display.progress(f"sending {len(files)} files to {target}", len(files)) as bar:
        for line in run_module("worker.commands.send", [target], stdin="\n".join(map(str, files))):
            outcome, _, detail = line.partition(" ")
            if outcome == "stored":
                stored += 1
            else:
                refused.append(detail)
            bar.advance(bar.task_ids[0])
    if refused:
        raise EpvsError(
            f"{len(refused)} of {len(files)} files were not stored: {'; '.join(refused[:5])}",
            "Only DICOM Part 10 files can be sent; a status is the response of the SCP.",
        )
    return stored


def list_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files in `paths`, including all files inside its folders, sorted per folder.

    Raises
    ------
    EpvsError
        A path does not exist, or there are no files.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(entry for entry in path.rglob("*") if entry.is_file())
        elif path.is_file():
            files.append(path)
        else:
            raise EpvsError(f"{path} does not exist.")
    if not files:
        raise EpvsError(f"No files in {', '.join(map(str, paths))}.")
    return files
