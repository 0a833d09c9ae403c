"""The gate before a model version: origin and golden self-test, before its first use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from core.errors import Failed
from core.model_trust import require_trusted
from worker.grading.inference.description import ModelDescription

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from worker.grading.inference.server import ModelServer

RECHECK_S: Final = 30.0
"""A version that was refused is tried again after this time: its engine may have been rebuilt."""


class Gate:
    """Admits model versions of known origin that reproduce their golden output.

    Parameters
    ----------
    server : ModelServer
    models_dir : Path
        The model repository.
    trusted : collection of str
        Digests that the site trusts besides those of the shipped models.
    passed : set of str
        Digests of the ``model.json`` of versions that passed the self-test; added to.
    """

    def __init__(
        self, server: ModelServer, models_dir: Path, trusted: Collection[str], passed: set[str]
    ) -> None:
        self._server = server
        self._models_dir = models_dir
        self._trusted = trusted
        self._passed = passed
        self._refused: dict[str, tuple[float, Failed]] = {}

    def admit(self, name: str, version: str) -> ModelDescription:
        """Return the description of a version that may be used.

        Raises
        ------
        Unavailable
            Triton does not respond, or has not loaded the version.
        Failed
            The version may not be used: ``model-description-invalid``, ``model-not-trusted``,
            ``golden-mismatch``, ``model-mismatch`` or another code of `ModelServer`.
        """
        model = ModelDescription.read(self._models_dir, name, version)
        require_trusted(model.sha256, model.label, self._trusted)
        if model.sha256 in self._passed:
            return model
        refused_at, refusal = self._refused.get(model.sha256, (0.0, None))
        if refusal is not None and time.monotonic() - refused_at < RECHECK_S:
            raise refusal
        try:
            self._server.check_golden(model)
        except Failed as error:
            self._refused[model.sha256] = time.monotonic(), error
            raise
        self._passed.add(model.sha256)
        return model
