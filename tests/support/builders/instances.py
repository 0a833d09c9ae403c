"""Small MR instances, encoded as a sender would encode their data sets."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import Dataset, dcmwrite

from tests.support.clients import upper_layer as ul

if TYPE_CHECKING:
    import numpy as np


def encoded_instance(
    uid: str,
    study_uid: str,
    *,
    pixels: np.ndarray,
    patient_id: str = "CANARY-7",
    accession_number: str = "",
    explicit: bool = True,
) -> bytes:
    """Encode an instance in little endian.

    Parameters
    ----------
    uid, study_uid : str
        The study's series has the study's UID and ``.1``.
    pixels : ndarray, shape (rows, columns), uint16
    patient_id, accession_number : str
    explicit : bool
        Whether with explicit VRs.
    """
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = ul.MR_IMAGE, uid
    data_set.Modality = "MR"
    data_set.PatientName, data_set.PatientID = "Canary^Patient", patient_id
    if accession_number:
        data_set.AccessionNumber = accession_number
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = study_uid, f"{study_uid}.1"
    data_set.Rows, data_set.Columns = pixels.shape
    data_set.BitsAllocated = 16
    data_set.PixelData = pixels.tobytes()
    data_set["PixelData"].VR = "OW"
    stream = BytesIO()
    dcmwrite(stream, data_set, implicit_vr=not explicit, little_endian=True)
    return stream.getvalue()
