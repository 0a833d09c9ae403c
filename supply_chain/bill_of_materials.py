"""Software bill of materials in CycloneDX, from the lock files and the model weights.

``make sbom`` or ``python -m supply_chain.bill_of_materials FILE``. Not in it: the container images
of docker-compose.yml, packages of the operating system, and PyTorch, which only training uses.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from core.version import VERSION
from supply_chain.locks import LOCKS, ROOT, Pin, read_lock

if TYPE_CHECKING:
    from collections.abc import Iterable

_LICENCE: Final = "Apache-2.0"
_SCOPES: Final = {
    "requirements/node.lock": ComponentScope.REQUIRED,
    "requirements/test.lock": ComponentScope.EXCLUDED,  # never installed with the node
}
"""Of packages in these lock files; those of the embedded servers are optional."""


def make_bill(root: Path = ROOT) -> str:
    """Return the bill of materials as JSON, valid against the schema of CycloneDX 1.6.

    Parameters
    ----------
    root : Path
        Folder of the repository.

    Raises
    ------
    ValueError
        A lock file has a line of another form, a model's weights are not those of its description,
        or the bill does not conform to the schema.
    """
    product = Component(
        name="epvs-node",
        version=VERSION,
        type=ComponentType.APPLICATION,
        bom_ref=f"epvs-node@{VERSION}",
        licenses=[DisjunctiveLicense(id=_LICENCE)],
    )
    locks = {lock: read_lock(root / lock) for lock in LOCKS}
    components = [*_packages(locks), *_models(root)]
    bill = Bom(components=components, serial_number=_serial_number(components))
    bill.metadata.component = product
    bill.register_dependency(product, components)
    text = str(JsonV1Dot6(bill).output_as_string(indent=2))
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise ValueError(f"the bill of materials is not valid: {problem}")
    return text


def _packages(locks: dict[str, list[Pin]]) -> list[Component]:
    """One component for each version of a package, with what every lock file says of it."""
    found: dict[tuple[str, str], dict[str, Pin]] = {}
    for lock, pins in locks.items():
        for pin in pins:
            found.setdefault((pin.name, pin.version), {})[lock] = pin
    components = []
    for (name, version), by_lock in found.items():
        url = PackageURL("pypi", name=name, version=version)
        components.append(
            Component(
                name=name,
                version=version,
                type=ComponentType.LIBRARY,
                bom_ref=url.to_string(),
                purl=url,
                scope=_scope(by_lock),
                hashes=_sha256({digest for pin in by_lock.values() for digest in pin.hashes}),
                properties=[
                    Property(name="epvs-node:lock", value=f"{lock} {pin.marker}".strip())
                    for lock, pin in by_lock.items()
                ],
            )
        )
    return components


def _scope(locks: Iterable[str]) -> ComponentScope:
    scopes = {_SCOPES.get(lock, ComponentScope.OPTIONAL) for lock in locks}
    order = (ComponentScope.REQUIRED, ComponentScope.OPTIONAL, ComponentScope.EXCLUDED)
    return next(scope for scope in order if scope in scopes)


def _models(root: Path) -> list[Component]:
    """One component for each set of weights, with its model card."""
    components = []
    for description in sorted(root.glob("triton_models/*/*/model.json")):
        model: dict[str, Any] = json.loads(description.read_text(encoding="utf-8"))
        weights = description.with_name("model.onnx")
        fp16 = description.with_name("model.fp16.onnx")
        for file, described in ((weights, "weights_sha256"), (fp16, "fp16_sha256")):
            if (found := _digest(file)) != model[described]:
                raise ValueError(f"{file} has SHA-256 {found}, but {description} says another")
        card = description.with_name("MODEL.md")
        components.append(
            Component(
                name=model["name"],
                version=model["version"],
                type=ComponentType.MACHINE_LEARNING_MODEL,
                bom_ref=f"model:{model['name']}@{model['version']}",
                description=f"{model['display_name']}. {model['intended_use']}",
                licenses=[DisjunctiveLicense(id=_LICENCE)],
                hashes=_sha256({model["weights_sha256"]}),
                external_references=[
                    ExternalReference(
                        type=ExternalReferenceType.MODEL_CARD,
                        url=XsUri(card.relative_to(root).as_posix()),
                        hashes=_sha256({_digest(card)}),
                    )
                ],
                properties=[
                    Property(name="epvs-node:weights", value=weights.relative_to(root).as_posix()),
                    Property(name="epvs-node:fp16", value=fp16.relative_to(root).as_posix()),
                    Property(name="epvs-node:fp16-sha256", value=model["fp16_sha256"]),
                    Property(name="epvs-node:training-data", value=model["training_data"]),
                    Property(name="epvs-node:trained-at", value=model["trained_at"]),
                ],
            )
        )
    return components


def _serial_number(components: Iterable[Component]) -> uuid.UUID:
    """Derive it from the components: the same ones always get the same number."""
    content = sorted(
        f"{component.bom_ref.value} {sorted(each.content for each in component.hashes)}"
        for component in components
    )
    return uuid.uuid5(uuid.NAMESPACE_OID, "\n".join(content))


def _sha256(digests: Iterable[str]) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in sorted(digests)]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m supply_chain.bill_of_materials", description=__doc__
    )
    parser.add_argument("file", type=Path, help="where to write it")
    path: Path = parser.parse_args(arguments).file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(make_bill(), encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
