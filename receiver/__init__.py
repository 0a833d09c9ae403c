"""The DICOM Storage SCP: stores received instances durably before it answers success.

One thread serves one connection, from module to module::

    listener            accepted, TLS handshake, A-ASSOCIATE-RQ read
    association         admitted or rejected (admission), counted, served to its end
      negotiation       A-ASSOCIATE-RQ decoded, contexts negotiated (contexts), A-ASSOCIATE-AC
      data_phase        requests read (pdu, dimse) and answered
        storage         one C-STORE: checks, status (status)
          spool         file written, hashed, fsynced, renamed
          header        identifying elements
    instance_registry   one more thread: rows and audit events of all associations, in batches

`service` puts these parts together, and `supervisor` runs several processes of them on one port.
Only `negotiation`, `contexts` and `service` use pynetdicom, and only names that it documents.
"""
