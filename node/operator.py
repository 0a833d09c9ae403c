"""Who runs a command, for the audit trail."""

from __future__ import annotations

import os
import pwd


def operator_name() -> str:
    """Return the name of the operating system's user who runs the command.

    From the user database, not from the environment, which the user can set.
    """
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # containers may run as a user without a name
        return f"uid {uid}"
