"""Delivery over TLS to DCMTK: both sides must authenticate, or nothing is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from core.errors import ConfigurationError, Unavailable
from core.results import ObjectKind
from tests.support.builders.certificates import Authority
from tests.support.builders.made_study import encoded_data_set, report_object
from tests.support.servers.storescp import run_storescp
from worker.delivery.dicom_scu import DicomScu, OutgoingFile
from worker.delivery.statuses import Response

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.destinations import DicomDestination
    from core.tls import Identity

UID = "2.25.77"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pacs(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DicomDestination, Path]]:
    folder = tmp_path_factory.mktemp("pacs")
    with run_storescp(folder, authority.issue("localhost")) as destination:
        yield destination, folder / "received"


@pytest.fixture
def file(tmp_path: Path) -> OutgoingFile:
    made = report_object(ObjectKind.SECONDARY_CAPTURE, UID)
    path = tmp_path / "object.dcm"
    path.write_bytes(made.content)
    return OutgoingFile(made.sop_class_uid, UID, made.transfer_syntax_uid, path)


def user(destination: DicomDestination, identity: Identity | None) -> DicomScu:
    return DicomScu(destination, calling_ae="EPVSNODE", timeout_s=3.0, identity=identity)


def test_an_object_arrives_unchanged(
    authority: Authority, pacs: tuple[DicomDestination, Path], file: OutgoingFile
) -> None:
    destination, received = pacs
    [result] = user(destination, authority.issue("node.example")).store([file])
    assert result.response is Response.STORED
    [stored] = [path for path in received.iterdir() if UID in path.name]
    assert encoded_data_set(stored.read_bytes()) == encoded_data_set(file.path.read_bytes())


def test_the_certificate_may_state_another_name_than_the_host(
    authority: Authority, pacs: tuple[DicomDestination, Path]
) -> None:
    node = authority.issue("node.example")
    by_address = replace(pacs[0], host="127.0.0.1")
    with pytest.raises(Unavailable, match=r"must state the name 127\.0\.0\.1"):
        user(by_address, node).echo()
    user(replace(by_address, tls_name="localhost"), node).echo()


def test_nothing_is_sent_to_a_peer_with_an_unknown_authority(
    authority: Authority, tmp_path: Path, file: OutgoingFile
) -> None:
    stranger = Authority(tmp_path / "stranger").issue("localhost")
    # It trusts the node's authority, so it is the node that refuses.
    believing = replace(stranger, authorities=authority.certificate)
    with (
        run_storescp(tmp_path, believing) as destination,
        pytest.raises(Unavailable, match="EPVS_TLS_AUTHORITIES"),
    ):
        user(destination, authority.issue("node.example")).store([file])
    assert not list((tmp_path / "received").iterdir())


def test_a_peer_refuses_an_unknown_client_certificate(
    pacs: tuple[DicomDestination, Path], authority: Authority, tmp_path: Path, file: OutgoingFile
) -> None:
    stranger = Authority(tmp_path).issue("node.example")
    with pytest.raises(Unavailable):
        user(pacs[0], replace(stranger, authorities=authority.certificate)).store([file])


def test_nothing_is_sent_in_the_clear(
    authority: Authority, tmp_path: Path, file: OutgoingFile
) -> None:
    with run_storescp(tmp_path, None) as destination:
        with pytest.raises(Unavailable):
            user(replace(destination, tls=True), authority.issue("node.example")).store([file])
        with pytest.raises(ConfigurationError, match="no certificate"):
            user(replace(destination, tls=True), None)
    assert not list((tmp_path / "received").iterdir())
