"""First step of the flow: the DICOM Storage SCP, which answers success once an instance is safe.

``association → admission → presentation contexts → C-STORE → header → spool file → row → status``

`receiver.service` and `receiver.pynetdicom_internals` alone know pynetdicom's associations; the
modules behind them take plain bytes and strings.
"""
