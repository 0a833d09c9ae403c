"""Sends DICOM files by C-STORE, as a modality or a PACS would.

``python -m worker.commands.send AE@host:port`` reads file paths from standard input, one per line,
and writes one line for each: ``stored PATH`` or ``refused PATH: reason``. The exit code is 0 if the
destination could be reached, even if it refused files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from core.destinations import parse_dicom_destination
from core.errors import EpvsError
from core.settings import load_settings
from core.text import printable, printable_lines
from worker.delivery.dicom_scu import DicomScu, OutgoingFile
from worker.delivery.statuses import Response

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from core.destinations import DicomDestination
    from core.tls import Identity

_CONTEXTS_PER_ASSOCIATION = 128  # PS3.8 9.3.2.2: context ids are the odd numbers up to 255


def read_outgoing(path: Path) -> OutgoingFile | None:
    """Read what sending needs to know about a file; None if it is not a DICOM instance."""
    try:
        meta = dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).file_meta
        return OutgoingFile(
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            path=path,
        )
    except (InvalidDicomError, AttributeError, OSError, ValueError, EOFError):
        return None


def in_batches(files: Sequence[OutgoingFile]) -> Iterator[list[OutgoingFile]]:
    """Split `files` so that each batch fits into one association's presentation contexts."""
    batch: list[OutgoingFile] = []
    contexts: set[tuple[str, str]] = set()
    for file in files:
        context = (file.sop_class_uid, file.transfer_syntax_uid)
        if context not in contexts and len(contexts) == _CONTEXTS_PER_ASSOCIATION:
            yield batch
            batch, contexts = [], set()
        batch.append(file)
        contexts.add(context)
    if batch:
        yield batch


def send(
    paths: Sequence[Path],
    destination: DicomDestination,
    calling_ae: str,
    timeout_s: float,
    identity: Identity | None = None,
) -> None:
    """Send `paths` and write one line for each to standard output.

    Raises
    ------
    Unavailable
        No association could be established.
    ConfigurationError
        The destination requires TLS, and `identity` is missing or cannot be used.
    """
    outgoing = []
    for path in paths:
        file = read_outgoing(path)
        if file is None:
            _say("refused", path, "not a DICOM Part 10 instance")
        else:
            outgoing.append(file)
    scu = DicomScu(destination, calling_ae=calling_ae, timeout_s=timeout_s, identity=identity)
    for batch in in_batches(outgoing):
        for file, result in zip(batch, scu.store_each(batch), strict=True):
            if result.response is Response.STORED:
                _say("stored", file.path)
            else:
                _say("refused", file.path, result.detail)


def _say(outcome: str, path: Path, reason: str = "") -> None:
    sys.stdout.write(printable(f"{outcome} {path}{': ' + reason if reason else ''}") + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the command."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m worker.commands.send AE@host:port < list of paths")
    try:
        settings = load_settings()
        destination = parse_dicom_destination(sys.argv[1])
        paths = [Path(line) for line in sys.stdin.read().splitlines() if line]
        send(paths, destination, "EPVSSEND", settings.network_timeout_s, settings.tls_identity)
    except (EpvsError, ValueError) as error:
        sys.exit(printable_lines(str(error)))


if __name__ == "__main__":
    main()
