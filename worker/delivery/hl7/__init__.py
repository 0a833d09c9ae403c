"""Delivery of results to a RIS or worklist: HL7 v2 messages built from the SR, sent by MLLP.

``stored SR → ResultMessage → acknowledgment``. The message has the content and the codes of the SR.
Only `er7` uses hl7apy.
"""
