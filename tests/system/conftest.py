"""The whole node with a real PACS: PostgreSQL, Redis, Triton and Orthanc, without stand-ins."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from core.settings import load_settings
from db.session import create_engine, unit_of_work
from db.views import read_view
from node.demonstration.pacs import AE_TITLE
from node.embedded.stack import EmbeddedStack, embedded_settings
from tests.support.builders.synthetic_studies import generate_synthetic_study
from tests.support.paths import ROOT
from tests.support.servers.mllp import scripted_receiver
from tests.support.servers.orthanc import start_orthanc
from tests.support.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from node.demonstration.pacs import OrthancPacs
    from node.embedded.triton import EmbeddedTriton
    from tests.support.servers.mllp import ScriptedReceiver
    from tests.support.servers.postgres import PostgresServer

ENDED = ("delivered", "committed", "rejected", "failed")


@dataclass
class Node:
    """The running node, the PACS and RIS beside it, and the node's database."""

    stack: EmbeddedStack
    pacs: OrthancPacs
    ris: ScriptedReceiver
    engine: Engine

    @property
    def port(self) -> int:
        return self.stack.settings.port

    def wait(self, study_uid: str) -> dict[str, Any]:
        """Wait until the study is finished; return its row of ``worklist_results``."""
        return self.wait_for(study_uid, lambda row: row["status"] in ENDED)

    def wait_for(
        self, study_uid: str, reached: Callable[[dict[str, Any]], bool], timeout_s: float = 240
    ) -> dict[str, Any]:
        """Wait until the study's row of ``worklist_results`` satisfies `reached`; return it."""
        deadline = time.monotonic() + timeout_s
        rows: list[dict[str, Any]] = []
        while time.monotonic() < deadline:
            self.stack.supervise()
            with unit_of_work(self.engine, read_only=True) as session:
                rows = read_view(session, "worklist_results", study_uid=study_uid)
            if rows and reached(rows[0]):
                return rows[0]
            time.sleep(0.2)
        raise AssertionError(f"study {study_uid} within {timeout_s:.0f} s: {rows}")


@pytest.fixture(scope="session")
def node(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    triton_server: EmbeddedTriton,
) -> Iterator[Node]:
    """The whole stack on PostgreSQL, with Orthanc as destination and as auto-forwarding sender.

    Orthanc supports storage commitment; a RIS receives HL7 messages.
    """
    work_dir = tmp_path_factory.mktemp("node")
    port = free_port()
    database = postgres_server.create_database()
    pacs = start_orthanc(work_dir / "orthanc", forward_to=("EPVSNODE", port))
    with ExitStack() as ending:
        ending.callback(pacs.stop)
        ris = ending.enter_context(scripted_receiver())
        archive = f"{AE_TITLE}@127.0.0.1:{pacs.dicom_port}?pm=1&notgraded=1&commit=1"
        settings = embedded_settings(
            load_settings(
                data_dir=work_dir / "data",
                models_dir=ROOT / "triton_models",
                triton_url=triton_server.url,
                database_url=postgres_server.url(database),
                database_owner_url=postgres_server.owner_url(database),
                host="127.0.0.1",
                port=port,
                other_classes="accept",  # so that the CT samples reach series selection
                quiet_period_s=2.0,
                sweep_interval_s=0.2,
                destinations=f"{archive},{ris.destination.name}",
            )
        )
        with EmbeddedStack(settings) as stack:
            engine = create_engine(settings.database_url)
            yield Node(stack, pacs, ris, engine)
            engine.dispose()


@pytest.fixture(scope="session")
def synthetic_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic study, generated once."""
    return generate_synthetic_study(tmp_path_factory.mktemp("synthetic"), seed=20)
