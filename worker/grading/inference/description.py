"""Model descriptions: what ``model.json`` says about each model in the model repository."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from core.errors import Failed
from core.model_versions import newest_version
from core.results import IntendedUse, ModelIdentity, parse_statement

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Enhancement: TypeAlias = Literal["stationary", "block-group", "none"]
"""Haar enhancement of the rating model's images."""

MODELS: Final = ("rating", "severity")
GOLDEN: Final = "golden.npz"
"""Inputs with the outputs that the model gave for them when it was exported."""

_REMEDY: Final = (
    "Correct EPVS_MODELS_DIR, restore the file, or promote another version (epvs-node models list)."
)


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model as its ``model.json`` describes it.

    Attributes
    ----------
    identity : ModelIdentity
    inputs, outputs : mapping
        Shape of each tensor by its name; the batch comes first and is -1.
    folder : Path
        The version's folder.
    files : mapping
        SHA-256 of the other files of the version by their names.
    enhancement : str
        Haar enhancement of the images that the network was trained on.
    sha256 : str
        Of the ``model.json`` that was read. It names all other files of the version by their
        digests, so it stands for the whole version.
    """

    identity: ModelIdentity
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    folder: Path
    files: Mapping[str, str]
    enhancement: Enhancement
    sha256: str

    @property
    def label(self) -> str:
        """Model and version, for messages."""
        return f"{self.identity.name} version {self.identity.version}"

    def check_files(self) -> None:
        """Compare every file of the version with its digest.

        Raises
        ------
        Failed
            ``model-files-changed``: one is missing or differs.
        """
        for name, sha256 in self.files.items():
            path = self.folder / name
            try:
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                found = type(error).__name__
            if found != sha256:
                raise Failed(
                    "model-files-changed",
                    f"{path} is not the file that model.json describes ({found[:20]}).",
                    "Restore the version's folder, or export the model again.",
                )

    @classmethod
    def read(cls, models_dir: Path, name: str, version: str | None = None) -> ModelDescription:
        """Read ``model.json`` of one version of the model `name` in the model repository.

        Parameters
        ----------
        models_dir : Path
        name : str
        version : str, optional
            By default the highest.

        Raises
        ------
        Failed
            ``model-description-invalid``: the file is missing or malformed, states no intended use
            or describes another version than that of its folder.
        """
        path = models_dir / name
        try:
            path = path / (version or newest_version(path)) / "model.json"
            content = path.read_bytes()
            text = json.loads(content)
            identity = ModelIdentity(
                name=text["name"],
                version=text["version"],
                weights_sha256=text["weights_sha256"],
                display_name=text["display_name"],
                training_data=text["training_data"],
                intended_use=_intended_use(text),
            )
            inputs = {key: tuple(dims) for key, dims in text["inputs"].items()}
            outputs = {key: tuple(dims) for key, dims in text["outputs"].items()}
            enhancement = _enhancement(text)
            files = _files(text)
            _check_folder(identity, path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise invalid_description(path, error, _remedy(models_dir / name)) from None
        return cls(
            identity=identity,
            inputs=inputs,
            outputs=outputs,
            folder=path.parent,
            files=files,
            enhancement=enhancement,
            sha256=hashlib.sha256(content).hexdigest(),
        )


def invalid_description(path: Path, error: Exception, remedy: str = _REMEDY) -> Failed:
    """Build the exception for a version or a folder of versions that cannot be used."""
    return Failed(
        "model-description-invalid",
        f"{path} cannot be used ({type(error).__name__}: {error}).",
        remedy,
    )


def _remedy(model: Path) -> str:
    if (model / "model.json").is_file():  # where version 0.1 had it
        return (
            f"Move model.json and MODEL.md from {model} into the folder of the version that they "
            "describe."
        )
    return _REMEDY


def _check_folder(identity: ModelIdentity, path: Path) -> None:
    if (identity.name, identity.version) != (path.parents[1].name, path.parent.name):
        raise ValueError(f"it describes {identity.name} version {identity.version}")


def _files(description: Mapping[str, Any]) -> dict[str, str]:
    if "golden_sha256" not in description:
        raise ValueError("it has no golden_sha256; state there the SHA-256 of golden.npz")
    keys = {
        "model.onnx": "weights_sha256",
        "model.fp16.onnx": "fp16_sha256",
        GOLDEN: "golden_sha256",
    }
    return {name: str(description[key]) for name, key in keys.items() if key in description}


def _enhancement(description: Mapping[str, Any]) -> Enhancement:
    stated = description["preprocessing"]["enhancement"]
    if stated not in get_args(Enhancement):
        raise ValueError(f"its Haar enhancement {stated!r} is unknown")
    return stated


def _intended_use(description: Mapping[str, Any]) -> IntendedUse:
    """Read the intended use. There is no default: only its author can state it for a model."""
    if "intended_use" not in description:
        raise ValueError("it has no intended_use; state there what the model may be used for")
    statement = parse_statement(description["intended_use"])
    # Only an explicit `false` lifts the restriction to research.
    return IntendedUse(statement, description.get("research_use_only") is not False)
