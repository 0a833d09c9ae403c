"""First step of the flow: the DICOM Storage SCP, which answers success once an instance is safe.

``association → admission → presentation contexts → C-STORE → header → spool file → row → status``

Only `receiver.service` knows pynetdicom; the modules behind it take plain bytes and strings.
"""
