"""Origin of models: which descriptions (``model.json``) a node serves.

A description names the other files of its version by their SHA-256. That proves that they belong
together, but whoever can write into the folder can replace all of them. So the digests of the
descriptions are known outside the folder: those of the shipped models here, those of a site's own
models in ``EPVS_TRUSTED_MODELS``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Collection

SHIPPED: Final = frozenset(
    {
        "ff72f0d0ef1db9d15109886ea4bf871a2e543437d059cf41e1956aa9e57a7624",  # rating 2
        "59caeb71aa98dacefc9e2f3886c8d5a67a15c202db77a16daebd95a4ac88bc2d",  # severity 1
    }
)
"""SHA-256 of ``model.json`` of every shipped version; a test compares them with the files."""


def is_trusted(sha256: str, added: Collection[str]) -> bool:
    """Whether a description is that of a shipped model or of one that the site has added."""
    return sha256 in SHIPPED or sha256 in added


def require_trusted(sha256: str, what: str, added: Collection[str]) -> None:
    """Refuse a model of unknown origin.

    Parameters
    ----------
    sha256 : str
        Of its ``model.json``.
    what : str
        Model and version, for the message.
    added : collection of str
        Digests from ``EPVS_TRUSTED_MODELS``.

    Raises
    ------
    Failed
        ``model-not-trusted``.
    """
    if not is_trusted(sha256, added):
        raise Failed(
            "model-not-trusted",
            f"The origin of {what} is not known: its model.json has the SHA-256 {sha256}.",
            "If it is a model of this site, add that to EPVS_TRUSTED_MODELS and restart the "
            "workers. If not, find out who changed the models' folder, and restore it.",
        )
