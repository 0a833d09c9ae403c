"""Results for a RIS or worklist: HL7 v2 messages, and the way they travel (MLLP).

``SR (as kept) → ResultMessage → acknowledgment``. The SR is what was graded; the message says the
same with the same codes. `er7` is the only owner of hl7apy.
"""
