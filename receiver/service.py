"""Receiving: the application entity, and what becomes of each event of an association.

pynetdicom negotiates; its events are handed to the module that decides: `receiver.admission`,
`receiver.contexts`. Once established, an association is served by `receiver.streaming`, or, where
``EPVS_DATA_PATH=plain``, by pynetdicom.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, cast

from pydicom import config as pydicom_config
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.dsutils import decode

from core.tls import certificate_names
from core.version import NAME, VERSION
from db.delivery.commitments import take_report
from receiver import pynetdicom_internals
from receiver.admission import refusal
from receiver.contexts import REJECTION_REASONS, supported_contexts
from receiver.ledger import Ledger
from receiver.listener import Door, StorageServer
from receiver.spool import IMPLEMENTATION_CLASS_UID, Spool
from receiver.status import Refused, Status
from receiver.storage import Storage, StoreRequest
from receiver.streaming import DataPhase
from receiver.supervisor import Occupancy

if TYPE_CHECKING:
    import ssl

    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from sqlalchemy import Engine

    from core.settings import Settings

logger = logging.getLogger(__name__)

MAXIMUM_PDU_BYTES: Final = 131_072
"""DCMTK's maximum; larger ones bring nothing."""
ASSOCIATE_TIMEOUT_S: Final = 10.0
"""A connection that has not asked for an association by then is closed."""
_POLL_S: Final = 0.05
_ABORT_S: Final = 0.5


def configure_libraries() -> None:
    """Set the process-wide switches of pynetdicom and pydicom that the receiver relies on."""
    pynetdicom_internals.configure()
    # Warnings of pydicom's validation quote the values.
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    pydicom_config.settings.writing_validation_mode = pydicom_config.IGNORE


class Receiver:
    """The Storage SCP of the node.

    Parameters
    ----------
    settings : Settings
    engine : Engine
        May be unreachable: instances are then refused transiently until it answers.
    occupancy : Occupancy, optional
        Shared with the other processes of the receiver, where there are any.
    slot : int
        Which of the processes this is.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        occupancy: Occupancy | None = None,
        slot: int = 0,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._occupancy = occupancy or Occupancy(1)
        self._slot = slot
        self._spool = Spool(
            settings.spool_dir,
            settings.spool_reserve_mb * 1024 * 1024,
            slot=slot,
            n_slots=settings.receiver_processes,
        )
        # Senders wait about as long as we do for the network; they shall get their 0xA700 before.
        self._ledger = Ledger(engine, patience_s=settings.network_timeout_s / 2)
        self._storage = Storage(self._spool, self._ledger, settings.max_instance_mb * 1024 * 1024)
        self._servers: list[StorageServer] = []

    def start(self) -> None:
        """Prepare the spool and begin to listen.

        Raises
        ------
        OSError
            The spool cannot be written or a port is taken.
        ConfigurationError
            The certificate, its key or the authorities cannot be used.
        """
        settings = self._settings
        configure_libraries()
        swept = self._spool.prepare()
        self._occupancy.set(self._slot, 0)  # of an earlier life of this process
        # All ports before any of them is served: what cannot start shall not half start.
        if settings.port:
            self._servers.append(self._bind(settings.port, None))
        if settings.tls_port and settings.tls_identity:
            self._servers.append(
                self._bind(settings.tls_port, settings.tls_identity.server_context())
            )
        for server in self._servers:
            threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": _POLL_S}, name="accept"
            ).start()
        logger.info(
            "listening ae_title=%s host=%s port=%d tls_port=%d swept=%d",
            *(settings.ae_title, settings.host, settings.port, settings.tls_port, swept),
        )
        if not settings.caller_rules:
            logger.warning("no-callers-admitted: EPVS_CALLERS is empty, so nobody may associate")

    def stop(self, deadline_s: float) -> None:
        """Stop listening, let open associations finish, abort what is open after `deadline_s`."""
        for server in self._servers:
            server.shutdown()
        end = time.monotonic() + deadline_s
        while (open_ones := self._open_associations()) and time.monotonic() < end:
            time.sleep(_POLL_S)
        for association in open_ones:  # each abort waits for its peer, so not one after the other
            threading.Thread(target=association.abort, daemon=True).start()
        if open_ones:
            time.sleep(_ABORT_S)
        self._ledger.close()
        logger.info("stopped aborted=%d", len(open_ones))

    def _bind(self, port: int, tls: ssl.SSLContext | None) -> StorageServer:
        """Listen at `port`; connections wait until they are served."""
        door = Door(
            max_waiting=self._settings.max_waiting,
            note=self._ledger.note,
            on_poll=self._report_occupancy,
            tls=tls,
            is_shared=self._settings.receiver_processes > 1,
        )
        serve = self._data_phase().serve if self._settings.data_path == "streaming" else None
        server = self._application_entity().make_server(
            (self._settings.host, port),
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_ACCEPTED, self._on_accepted),
                (evt.EVT_C_STORE, self._on_c_store),
                (evt.EVT_N_EVENT_REPORT, self._on_n_event_report),
            ],
            # pynetdicom calls it and asks nothing else of it.
            server_class=cast("type[StorageServer]", partial(StorageServer, door=door)),
            request_handler=partial(pynetdicom_internals.StorageRequestHandler, serve=serve),
        )
        return cast("StorageServer", server)

    def _application_entity(self) -> AE:
        ae = AE(self._settings.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = f"{NAME} {VERSION}"[:16]
        ae.supported_contexts = supported_contexts(self._settings.other_classes)
        ae.maximum_associations = sys.maxsize  # counts mere connections; `_on_requested` counts
        ae.maximum_pdu_size = MAXIMUM_PDU_BYTES
        ae.network_timeout = self._settings.network_timeout_s
        ae.dimse_timeout = self._settings.network_timeout_s
        ae.acse_timeout = min(ASSOCIATE_TIMEOUT_S, self._settings.network_timeout_s)
        return ae

    def _data_phase(self) -> DataPhase:
        return DataPhase(self._storage, self._take_report, self._settings.network_timeout_s)

    def _open_associations(self) -> list[Association]:
        """Associations that are established or being negotiated; not mere connections."""
        return [
            each
            for server in self._servers
            for each in server.active_associations
            if each.requestor.primitive and not each.is_rejected
        ]

    def _on_requested(self, event: Event) -> None:
        association = event.assoc
        others = sum(other is not association for other in self._open_associations())
        refused = refusal(
            self._settings,
            **_parties(association),
            certificate_names=certificate_names(pynetdicom_internals.peer_certificate(association)),
            has_room=self._spool.has_room(),
            n_open=others + self._occupancy.of_others(self._slot),
        )
        if refused is None:
            self._occupancy.set(self._slot, others + 1)
            return
        association.acse.send_reject(refused.result, refused.source, refused.diagnostic)
        self._ledger.note("association-refused", reason=refused.reason, **_parties(association))
        association.kill()

    def _report_occupancy(self) -> None:
        self._occupancy.set(self._slot, len(self._open_associations()))

    def _on_accepted(self, event: Event) -> None:
        rejected = {
            str(context.abstract_syntax): REJECTION_REASONS.get(context.result or 0, "other")
            for context in event.assoc.rejected_contexts
        }
        if rejected:
            self._ledger.note("contexts-refused", sop_classes=rejected, **_parties(event.assoc))

    def _on_c_store(self, event: Event) -> Dataset:
        request: Any = event.request  # pynetdicom types it as any DIMSE request
        parties = _parties(event.assoc)
        store_request = StoreRequest(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            abstract_syntax=str(event.context.abstract_syntax),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            calling_ae=parties["calling_ae"],
            peer_address=parties["peer_address"],
        )
        response = Dataset()
        response.Status = int(Status.SUCCESS)
        try:
            with self._storage.begin(store_request) as incoming:
                incoming.write(event.encoded_dataset(include_meta=False))
                incoming.finish()
        except Refused as refused:
            response.Status = int(refused.status)
            response.ErrorComment = refused.message[:64]
        return response

    def _on_n_event_report(self, event: Event) -> tuple[int, None]:
        """Storage commitment, reported on an association of the archive's own."""
        return take_report(self._engine, event.event_information), None

    def _take_report(self, encoded: bytes, transfer_syntax_uid: str) -> int:
        syntax = UID(transfer_syntax_uid)
        information = decode(BytesIO(encoded), syntax.is_implicit_VR, syntax.is_little_endian)
        return take_report(self._engine, information)


def _parties(association: Association) -> dict[str, str]:
    primitive: Any = association.requestor.primitive
    return {
        "calling_ae": primitive.calling_ae_title.strip(),
        "called_ae": primitive.called_ae_title.strip(),
        "peer_address": association.requestor.address,
    }
