"""Presentation contexts that the node accepts: storage, verification, commitment reports.

Storage classes that may be graded are always accepted, others if ``EPVS_OTHER_CLASSES`` says so.
Each is accepted in every transfer syntax that pydicom knows: pixel data is not decoded while it is
received, so any encoding can be stored.
"""

from __future__ import annotations

from typing import Final, Literal

from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AllStoragePresentationContexts, VerificationPresentationContexts
from pynetdicom.presentation import PresentationContext, build_context

from core import commitment

GRADABLE_CLASSES: Final = (MRImageStorage, EnhancedMRImageStorage)
"""Always accepted. Enhanced MR Color is not one of them: colour is no T2 intensity."""

# Of the syntaxes proposed in one context, the first in this order is accepted: common ones first,
# and lossless before lossy, so that no sender compresses with loss because of the order here.
_PREFERRED: Final = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
)
TRANSFER_SYNTAXES: Final[tuple[UID, ...]] = (
    *_PREFERRED,
    *(uid for uid in AllTransferSyntaxes if uid not in _PREFERRED),
)

REJECTION_REASONS: Final = {
    0x01: "user-rejection",
    0x03: "abstract-syntax-not-supported",
    0x04: "transfer-syntaxes-not-supported",
}
"""Names in the audit trail for results of presentation contexts (PS3.8 table 9-18)."""


def supported_contexts(other_classes: Literal["refuse", "accept"]) -> list[PresentationContext]:
    """Presentation contexts of the Storage SCP.

    Parameters
    ----------
    other_classes : {"refuse", "accept"}
        Whether storage classes that cannot be graded are accepted too, so that a PACS which
        forwards whole studies reports no errors.
    """
    classes = list(GRADABLE_CLASSES)
    if other_classes == "accept":
        others = (context.abstract_syntax for context in AllStoragePresentationContexts)
        classes += [uid for uid in others if uid is not None and uid not in GRADABLE_CLASSES]
    syntaxes: list[str | UID] = [*TRANSFER_SYNTAXES]
    return [
        *VerificationPresentationContexts,
        _commitment_reports(),
        *(build_context(uid, syntaxes) for uid in classes),
    ]


def _commitment_reports() -> PresentationContext:
    """Context for storage commitment reports, which an archive sends as the SCP (PS3.4 J.3.3).

    The roles are the caller's. A caller that does not negotiate them is accepted, too.
    """
    # Not deflated: a report is decoded, and a few bytes could inflate to any size.
    context = build_context(
        commitment.SOP_CLASS_UID,
        [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian],
    )
    context.scu_role, context.scp_role = False, True
    return context
