"""Deterministic DICOM UIDs: the same content always gets the same UID.

PS3.5 section 9.1 and B.2: ``2.25.`` followed by a UUID as a decimal integer, at most 44 characters.
Archives respond with success to a changed object under a known UID, and silently drop it, so a UID
must change with the content. After a crash the same content must be sent again under the same UID,
so a UID must not depend on anything random.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# Generated once for this product; a change would give every existing result a new UID.
_NAMESPACE: Final = uuid.UUID("0b7e5c1d-63a4-4d0e-9f0b-5b6f1f3b8a52")


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces, ASCII only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def derived_uid(role: str, key: Mapping[str, Any]) -> str:
    """Derive a UID that depends on the arguments only.

    Parameters
    ----------
    role : str
        What the UID identifies, e.g. ``"sr-instance"``; two roles never share a UID.
    key : mapping
        Everything that determines the content of the object; representable in JSON.
    """
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{role}|{canonical_json(dict(key))}').int}"


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()
