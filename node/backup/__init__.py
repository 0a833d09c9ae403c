"""``epvs-node backup`` and ``restore``: database, received files, reports and audit checkpoints.

A backup is a folder: the dump of the database, the files that it names, ``files.sha256`` with the
hash of each (``sha256sum -c`` checks it) and, written last, ``manifest.json``. Settings, passwords
and keys are not in it.
"""
