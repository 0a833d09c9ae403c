"""Reads SR content trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.sr.coding import Code


def walk(item: Dataset) -> Iterator[Dataset]:
    """Yield every content item below `item`, depth first."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from walk(child)


def is_named(item: Dataset, name: Code) -> bool:
    """Whether a content item has the concept name `name`."""
    concept = item.get("ConceptNameCodeSequence", [Dataset()])[0]
    return (concept.get("CodeValue"), concept.get("CodingSchemeDesignator")) == (
        name.value,
        name.scheme_designator,
    )
