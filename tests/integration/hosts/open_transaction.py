"""Appends an audit event and keeps the transaction open, until it is killed."""

from __future__ import annotations

import sys
import time

from core.settings import load_settings
from db import audit
from db.session import create_engine, unit_of_work

if __name__ == "__main__":
    with unit_of_work(create_engine(load_settings().database_url)) as session:
        audit.append(session, "never-committed")
        session.flush()
        sys.stdout.write("appended\n")
        sys.stdout.flush()
        time.sleep(3600)
