"""Minimal Storage SCP of the demonstration, used where Orthanc is not installed.

``python -m node.demonstration.storage_scp AE_TITLE PORT FOLDER`` listens on loopback and
writes instances as files. It is not an archive: it has no index and supports no queries.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]


def _store(event: evt.Event, folder: Path) -> int:
    data = event.encoded_dataset()
    dataset = event.dataset
    study, instance = UID(str(dataset.StudyInstanceUID)), UID(str(dataset.SOPInstanceUID))
    if not (study.is_valid and instance.is_valid):
        return 0xC000
    target = folder / study / f"{instance}.dcm"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return 0x0000


def main(ae_title: str, port: int, folder: Path) -> None:
    """Serve until the process is terminated."""
    ae = AE(ae_title=ae_title)
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context(Verification)
    ae.require_called_aet = True
    ae.start_server(
        ("127.0.0.1", port), block=True, evt_handlers=[(evt.EVT_C_STORE, _store, [folder])]
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
