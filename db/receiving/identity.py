"""Whose a study is, and which received instances belong to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from db.enums import QuarantineReason

if TYPE_CHECKING:
    from core.studies import ReceivedInstance


class StudyIdentity(NamedTuple):
    """Patient, accession and caller of a study, as its row stores them."""

    patient_id: str
    accession_number: str
    calling_ae: str
    peer_address: str
    """With `calling_ae`: of the sender that opened the study."""

    @classmethod
    def of(cls, instance: ReceivedInstance) -> StudyIdentity:
        """Return the identity of a study that this instance opens."""
        return cls(
            storable(instance.patient_id),
            storable(instance.accession_number),
            storable(instance.calling_ae),
            instance.peer_address,
        )

    def find_contradiction(self, other: StudyIdentity) -> QuarantineReason | None:
        """Say why an instance with the identity `other` does not belong to the study.

        Senders leave the Patient ID out in emergencies. Then nothing but the caller shows to which
        patient an instance belongs.
        """
        if self.patient_id and other.patient_id:
            if self.patient_id != other.patient_id:
                return QuarantineReason.OTHER_PATIENT
        elif self[2:] != other[2:]:
            return QuarantineReason.NO_PATIENT_ID
        if other.accession_number not in ("", self.accession_number) and self.accession_number:
            return QuarantineReason.OTHER_ACCESSION
        return None

    def completed(self, other: StudyIdentity) -> StudyIdentity:
        """Adopt Patient ID and Accession Number of an instance where the study has none."""
        return self._replace(
            patient_id=self.patient_id or other.patient_id,
            accession_number=self.accession_number or other.accession_number,
        )


def storable(text: str) -> str:
    """Text that both databases accept: no NUL and nothing that UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
