"""Who may associate, and with which contexts; every refusal is an audit event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.uid import (
    JPEG2000,
    AllTransferSyntaxes,
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
)
from pynetdicom import AE, build_context
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from receiver.contexts import TRANSFER_SYNTAXES
from tests.support.clients.scu import association, dcmtk
from tests.support.servers.receiver import AE_TITLE, ReceiverProcess, run_receiver

if TYPE_CHECKING:
    from pathlib import Path

VERIFICATION = "1.2.840.10008.1.1"


def test_echo(receiver: ReceiverProcess) -> None:
    assert dcmtk("echoscu", receiver.port).returncode == 0


def test_refuses_another_called_ae(receiver: ReceiverProcess) -> None:
    answer = dcmtk("echoscu", receiver.port, "-aec", "OTHER")

    assert answer.returncode != 0
    assert "Called AE Title Not Recognized" in answer.stderr
    (row,) = receiver.wait_for_refusals("association-refused")
    assert (row["reason"], row["times"]) == ("called-ae-not-recognised", 1)
    assert (row["calling_ae"], row["peer_address"]) == ("PACS", "127.0.0.1")


def test_refuses_callers_that_are_not_listed(tmp_path: Path) -> None:
    callers = "PACS@127.0.0.1, OTHER@192.0.2.0/24"
    with run_receiver(tmp_path, callers=callers) as receiver:
        assert dcmtk("echoscu", receiver.port).returncode == 0
        stranger = dcmtk("echoscu", receiver.port, "-aet", "STRANGER")
        wrong_address = dcmtk("echoscu", receiver.port, "-aet", "OTHER")

        assert "Calling AE Title Not Recognized" in stranger.stderr
        assert "Calling AE Title Not Recognized" in wrong_address.stderr
        rows = receiver.wait_for_audit("association-refused", 2)
        assert [row.detail["calling_ae"] for row in rows] == ["STRANGER", "OTHER"]
        assert rows[0].detail == {
            "reason": "caller-not-on-allow-list",
            "calling_ae": "STRANGER",
            "called_ae": AE_TITLE,
            "peer_address": "127.0.0.1",
        }


def test_admits_no_caller_without_an_allow_list(tmp_path: Path) -> None:
    with run_receiver(tmp_path, callers="") as receiver:
        assert dcmtk("echoscu", receiver.port).returncode != 0


def test_refuses_transiently_below_the_disk_reserve(tmp_path: Path) -> None:
    with run_receiver(tmp_path, spool_reserve_mb="1000000000") as receiver:
        answer = dcmtk("echoscu", receiver.port)

        assert "Rejected Transient" in answer.stderr
        (row,) = receiver.wait_for_audit("association-refused")
        assert row.detail["reason"] == "disk-below-reserve"


def test_refuses_one_association_too_many(tmp_path: Path) -> None:
    with run_receiver(tmp_path, max_associations="1") as receiver:
        with association(receiver.port) as first:
            assert first.is_established
            answer = dcmtk("echoscu", receiver.port)

        assert "Rejected Transient" in answer.stderr
        (row,) = receiver.wait_for_audit("association-refused")
        assert row.detail["reason"] == "too-many-associations"


def test_accepts_gradable_classes_in_every_transfer_syntax(receiver: ReceiverProcess) -> None:
    contexts = [
        (sop_class, syntax)
        for sop_class in (MRImageStorage, EnhancedMRImageStorage)
        for syntax in AllTransferSyntaxes
    ]
    with association(receiver.port, contexts) as assoc:
        accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in assoc.accepted_contexts}

    assert accepted == set(contexts)
    assert set(TRANSFER_SYNTAXES) == set(AllTransferSyntaxes)


def test_prefers_a_lossless_syntax_of_those_offered(receiver: ReceiverProcess) -> None:
    offered = build_context(MRImageStorage, [JPEG2000, ExplicitVRLittleEndian])
    assoc = AE("PACS").associate("127.0.0.1", receiver.port, contexts=[offered], ae_title=AE_TITLE)
    (context,) = assoc.accepted_contexts
    assoc.release()

    assert context.transfer_syntax == [ExplicitVRLittleEndian]


def test_a_user_identity_is_neither_checked_nor_confirmed_nor_logged(
    receiver: ReceiverProcess,
) -> None:
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 2  # name and passcode
    identity.primary_field, identity.secondary_field = b"CANARY-USER", b"CANARY-PASSCODE"
    identity.positive_response_requested = True
    ae = AE("PACS")
    ae.add_requested_context(VERIFICATION)
    assoc = ae.associate("127.0.0.1", receiver.port, ae_title=AE_TITLE, ext_neg=[identity])

    # A missing confirmation says that it is not supported (PS3.7 annex D.3.3.7).
    assert assoc.is_established
    assert assoc.acceptor.user_identity is None
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()
    assert "CANARY" not in receiver.log.read_text()


def test_refuses_other_classes_and_says_so(receiver: ReceiverProcess) -> None:
    contexts = [(CTImageStorage, ExplicitVRLittleEndian), (VERIFICATION, ExplicitVRLittleEndian)]
    with association(receiver.port, contexts) as assoc:
        (rejected,) = assoc.rejected_contexts

    assert rejected.result == 0x03  # abstract syntax not supported
    (row,) = receiver.wait_for_refusals("contexts-refused")
    assert (row["reason"], row["calling_ae"]) == ("sop-class-not-taken", "PACS")


def test_accepts_other_classes_where_the_setting_says_so(tmp_path: Path) -> None:
    contexts = [(CTImageStorage, ExplicitVRLittleEndian)]
    with (
        run_receiver(tmp_path, other_classes="accept") as receiver,
        association(receiver.port, contexts) as assoc,
    ):
        assert [cx.abstract_syntax for cx in assoc.accepted_contexts] == [CTImageStorage]
