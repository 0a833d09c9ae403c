"""Looks at the model versions in the folder, and checks one before it takes a role.

``python -m worker.commands.models list`` writes one JSON object per version. ``… check MODEL
VERSION`` writes the digests of a version that may be used, and fails with the reason otherwise.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from core.errors import EpvsError, Failed
from core.model_trust import is_trusted
from core.model_versions import versions
from core.settings import load_settings
from worker.grading.inference.description import MODELS, ModelDescription
from worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.settings import Settings


def list_versions(settings: Settings) -> Iterator[dict[str, Any]]:
    """Describe every version in the folder, without asking Triton."""
    for name in MODELS:
        for version in versions(settings.models_dir / name):
            found: dict[str, Any] = {"model": name, "version": version}
            try:
                model = ModelDescription.read(settings.models_dir, name, version)
            except Failed as error:
                found["problem"] = error.message
            else:
                found |= {
                    "trained_on": model.identity.training_data,
                    "trusted": is_trusted(model.sha256, settings.trusted_digests),
                    **_digests(model),
                }
            yield found


def check(settings: Settings, name: str, version: str) -> dict[str, str]:
    """Check a version in every respect, and return its digests.

    Raises
    ------
    EpvsError
        It may not be used, or Triton does not serve it.
    """
    ModelDescription.read(settings.models_dir, name, version).check_files()
    return _digests(Services(settings).gate.admit(name, version))


def _digests(model: ModelDescription) -> dict[str, str]:
    return {"weights_sha256": model.identity.weights_sha256, "description_sha256": model.sha256}


def main() -> None:
    """Run the command."""
    logging.disable(logging.CRITICAL)
    command, *arguments = sys.argv[1:]
    try:
        settings = load_settings()
        found = list_versions(settings) if command == "list" else [check(settings, *arguments)]
        for each in found:
            sys.stdout.write(f"{json.dumps(each)}\n")
    except EpvsError as error:
        code = f"{error.code}: " if isinstance(error, Failed) else ""
        sys.exit(f"{code}{error}")


if __name__ == "__main__":
    main()
