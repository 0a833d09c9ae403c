"""The Storage SCP of one process: its parts put together, started and stopped."""

from __future__ import annotations

import logging
import time
from io import BytesIO
from typing import TYPE_CHECKING, Final

from pydicom import config as pydicom_config
from pydicom.uid import UID
from pynetdicom.dsutils import decode

from core.commitment import Reporter, respond_to_report
from core.tls import Identity, RenewedContext
from db.delivery import commitments
from receiver.association import Associations
from receiver.data_phase import DataPhase
from receiver.instance_registry import InstanceRegistry
from receiver.listener import REQUEST_TIMEOUT_S, Listener, PendingConnections
from receiver.refusals import Refusals
from receiver.spool import Spool
from receiver.storage import Storage
from receiver.supervisor import Occupancy

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from sqlalchemy import Engine

    from core.settings import Settings
    from receiver.data_phase import Established

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.05
_ABORT_S: Final = 0.5
"""Time for the threads of aborted associations to send their A-ABORT."""


class Receiver:
    """The Storage SCP of the node.

    Parameters
    ----------
    settings : Settings
    engine : Engine
        May be unreachable: instances are then refused transiently until it answers.
    occupancy : Occupancy, optional
        Shared with the other processes of the receiver, if there are any.
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
        self._occupancy = occupancy or Occupancy(1, settings.max_associations)
        self._slot = slot
        self._spool = Spool(settings.spool_dir, settings.spool_reserve_mb * 1024 * 1024)
        # Senders have network timeouts like ours; they must get their 0xA700 before that.
        self._registry = InstanceRegistry(engine, timeout_s=settings.network_timeout_s / 2)
        self._refusals = Refusals(engine, settings.receiver_processes)
        storage = Storage(
            self._spool,
            self._registry,
            self._refusals,
            settings.max_instance_mb * 1024 * 1024,
            settings.priorities,
        )
        self._pending = PendingConnections(
            settings.max_pending_connections, settings.max_pending_total, settings.caller_rules
        )
        self._associations = Associations(
            settings,
            self._spool,
            DataPhase(
                storage,
                self._take_report,
                self._refusals,
                network_timeout_s=settings.network_timeout_s,
                idle_timeout_s=settings.idle_timeout_s,
            ),
            self._refusals,
            self._occupancy,
            slot,
        )
        self._listeners: list[Listener] = []

    def start(self) -> None:
        """Prepare the spool and begin to listen.

        Raises
        ------
        OSError
            The spool cannot be written or a port is taken.
        ConfigurationError
            The certificate, its key or the authorities cannot be used, or the spool has no locks.
        """
        settings = self._settings
        # Warnings of both libraries quote values that peers sent.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
        pydicom_config.settings.writing_validation_mode = pydicom_config.IGNORE
        removed = self._spool.prepare()
        self._occupancy.clear(self._slot)
        # All ports are bound before any of them accepts, so that a failed start serves no peer.
        if settings.port:
            self._listeners.append(self._listener(settings.port, None))
        if settings.tls_port and settings.tls_identity:
            tls = RenewedContext(settings.tls_identity, Identity.server_context)
            self._listeners.append(self._listener(settings.tls_port, tls.current))
        for listener in self._listeners:
            listener.start()
        logger.info(
            "listening ae_title=%s host=%s port=%d tls_port=%d swept=%d",
            *(settings.ae_title, settings.host, settings.port, settings.tls_port, removed),
        )
        if not settings.caller_rules:
            logger.warning("no-callers-admitted: EPVS_CALLERS is empty, so no caller may associate")

    def stop(self, deadline_s: float) -> None:
        """Stop listening, let open associations finish, abort what is open after `deadline_s`."""
        for listener in self._listeners:
            listener.close()
        end = time.monotonic() + deadline_s
        while self._associations.n_open and time.monotonic() < end:
            time.sleep(_POLL_S)
        n_aborted = self._associations.abort_all()
        if n_aborted:
            time.sleep(_ABORT_S)
        self._registry.close()
        self._refusals.close()
        logger.info("stopped aborted=%d", n_aborted)

    def _listener(self, port: int, tls: Callable[[], ssl.SSLContext] | None) -> Listener:
        return Listener(
            self._settings.host,
            port,
            self._associations.serve,
            self._refusals,
            self._pending,
            timeout_s=min(REQUEST_TIMEOUT_S, self._settings.network_timeout_s),
            tls=tls,
            is_shared=self._settings.receiver_processes > 1,
        )

    def _take_report(
        self, encoded: bytes, transfer_syntax_uid: str, association: Established
    ) -> int:
        """Respond to a storage commitment report that an archive sends on its own association."""
        syntax = UID(transfer_syntax_uid)
        information = decode(BytesIO(encoded), syntax.is_implicit_VR, syntax.is_little_endian)
        reporter = Reporter(
            association.calling_ae, association.peer_address, association.certificate_names
        )
        return respond_to_report(
            information,
            lambda report: commitments.settle(
                self._engine, report, reporter, self._settings.destination_named
            ),
            lambda refusal: self._refusals.count(
                "report-refused",
                reason=refusal,
                calling_ae=association.calling_ae,
                peer_address=association.peer_address,
            ),
        )
