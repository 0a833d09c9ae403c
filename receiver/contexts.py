"""Receiving: which presentation contexts the node accepts: storage, echo, commitment reports.

The classes that may be graded are always accepted, the other storage classes as the setting says,
and each of them in every transfer syntax that pydicom knows: nothing is decoded on the way in, so
there is no encoding that the spool could not hold.
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
"""Always accepted. Enhanced MR Color is not among them: colour carries no T2 intensity."""

# Of several syntaxes offered in one context the first of ours is taken. What every reader knows
# comes first, lossless before lossy: a sender shall not compress with loss on our account.
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
"""Result of a presentation context (PS3.8 table 9-18), as the audit names it."""


def supported_contexts(other_classes: Literal["refuse", "accept"]) -> list[PresentationContext]:
    """Presentation contexts of the Storage SCP.

    Parameters
    ----------
    other_classes : {"refuse", "accept"}
        Whether storage classes that cannot be graded are taken all the same, which spares a PACS
        that forwards whole studies its error messages.
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
    """Let an archive report, as the SCP that it is, on an association that it opens (PS3.4 J.3.3).

    Roles are those of the caller. One that does not negotiate them is taken for what it does.
    """
    # Not deflated: a report is decoded, and a few bytes could swell to any size.
    context = build_context(
        commitment.SOP_CLASS_UID,
        [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian],
    )
    context.scu_role, context.scp_role = False, True
    return context
