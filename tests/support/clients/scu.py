"""Storage SCUs for the tests: DCMTK's programs, and a pynetdicom SCU that sends any bytes."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, build_context
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from tests.support.servers.dcmtk import dcmtk_program
from tests.support.servers.receiver import AE_TITLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pynetdicom.association import Association


def dcmtk(name: str, port: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run echoscu, storescu or dcmsend against a port on this machine."""
    command = [dcmtk_program(name), "-aet", "PACS", "-aec", AE_TITLE, "127.0.0.1", str(port)]
    return subprocess.run(
        [*command, *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def association(
    port: int,
    contexts: Sequence[tuple[str, str]] = ((MRImageStorage, ExplicitVRLittleEndian),),
    calling_ae: str = "PACS",
) -> Iterator[Association]:
    """An association that proposes one context for each (SOP class, transfer syntax)."""
    ae = AE(calling_ae)
    ae.network_timeout = ae.dimse_timeout = 30
    requested = [build_context(sop_class, syntax) for sop_class, syntax in contexts]
    assoc = ae.associate("127.0.0.1", port, contexts=requested, ae_title=AE_TITLE)
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def store_request(
    data_set: bytes, sop_instance_uid: str, sop_class_uid: str = MRImageStorage
) -> C_STORE:
    """A C-STORE-RQ with these bytes as its data set."""
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = sop_class_uid
    # The setter would refuse some invalid UIDs.
    request._affected_sop_instance_uid = sop_instance_uid  # type: ignore[assignment]
    request.Priority = 0
    request.DataSet = BytesIO(data_set)
    return request


def send_raw(
    assoc: Association,
    data_set: bytes,
    sop_instance_uid: str,
    sop_class_uid: str = MRImageStorage,
    context_id: int | None = None,
) -> int | None:
    """Send bytes as a data set; return the status, or None if the association ended instead."""
    if not assoc.is_established:
        return None
    if context_id is None:
        context_id = assoc.accepted_contexts[0].context_id
    assert context_id is not None
    assoc._reactor_checkpoint.clear()
    # Otherwise the reactor might take the response. It reports that it is paused a little before
    # it is, so give it some time.
    time.sleep(0.003)
    while not assoc._is_paused:
        time.sleep(0.0001)
    assoc.dimse.send_msg(store_request(data_set, sop_instance_uid, sop_class_uid), context_id)
    _, response = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    # It reports that it is paused until it has run again, and would take the next response.
    time.sleep(0.005)
    status: int | None = getattr(response, "Status", None)
    return status


def send_beginning(assoc: Association, data_set: bytes, sop_instance_uid: str) -> None:
    """Send a C-STORE-RQ without its last P-DATA-TF."""
    message = C_STORE_RQ()
    message.primitive_to_message(store_request(data_set, sop_instance_uid))
    fragments = list(message.encode_msg(1, 4096))
    for fragment in fragments[:-1]:
        assoc.dul.send_pdu(fragment)


def data_set_of(path: Path) -> bytes:
    """The data set of a Part 10 file; the whole content of any other file."""
    content = path.read_bytes()
    if content[128:132] != b"DICM" or content[132:136] != b"\x02\0\0\0":
        return content
    return content[144 + int.from_bytes(content[140:144], "little") :]
