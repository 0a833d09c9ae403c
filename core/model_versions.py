"""Version folders of a model in the model repository: ``rating/2``, with everything about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def versions(model: Path) -> list[str]:
    """Return the versions of a model, lowest first.

    Parameters
    ----------
    model : Path
        The model's folder, for example ``triton_models/rating``. Its folders whose names are
        whole numbers are its versions, as for Triton.
    """
    found = [path.name for path in model.glob("[1-9]*") if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=int)


def newest_version(model: Path) -> str:
    """Return the highest version of a model.

    Raises
    ------
    FileNotFoundError
        The folder has no version.
    """
    found = versions(model)
    if not found:
        raise FileNotFoundError(f"{model} has no version folder")
    return found[-1]
