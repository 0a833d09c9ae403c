"""Delivery: from a stored report to a PACS (DICOM) or a RIS (HL7 v2), one attempt at a time."""
