"""Renders an SR of this node as plain text.

The text is read back from the content tree, so that it shows what was sent.
"""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Final

from worker.grading.stages.report import codes
from worker.grading.stages.report.content_tree import is_named, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

_WIDTH: Final = 96
_INDENT: Final = "  "
_NAME_COLUMN: Final = 62
_FLAGS: Final = ("CompletionFlag", "PreliminaryFlag", "VerificationFlag")


def render_text(sr: Dataset, *, identity: bool = True) -> str:
    """Render an SR as text.

    Parameters
    ----------
    sr : Dataset
        A Comprehensive or Comprehensive 3D SR of this node.
    identity : bool
        Whether to include patient, study and date. Without them the text may be logged.
    """
    lines = [_meaning(sr), "=" * len(_meaning(sr))]
    if identity:
        lines += [
            _row("Patient", f"{sr.PatientName}, ID {sr.PatientID}"),
            _row(
                "Study",
                f"{_day(sr.StudyDate)}, accession number {sr.AccessionNumber or 'unknown'}",
            ),
            _row("Reported", f"{_day(sr.ContentDate)} {_minute(sr.ContentTime)}"),
        ]
    lines.append(_row("Status", ", ".join(str(sr.get(flag, "")).lower() for flag in _FLAGS)))

    tree = list(walk(sr))
    for item in tree:
        if is_named(item, codes.CONCLUSION):
            lines += ["", "Conclusion", *_paragraph(item.TextValue)]
    groups = [item for item in tree if is_named(item, codes.MEASUREMENT_GROUP)]
    lines += ["", *(_findings(groups) if groups else _no_grade(tree))]
    return "\n".join(lines) + "\n"


def _day(date: str) -> str:
    """Format ``YYYYMMDD`` as ``YYYY-MM-DD`` (ISO 8601)."""
    return f"{date[:4]}-{date[4:6]}-{date[6:8]}" if date else "date unknown"


def _minute(time: str) -> str:
    return f"{time[:2]}:{time[2:4]}"


def _findings(groups: Sequence[Dataset]) -> list[str]:
    lines = ["Findings"]
    for group in groups:
        lines += _group(group)
    lines += ["Algorithms"]
    for algorithm in dict.fromkeys(_algorithm(group) for group in groups):
        lines += _paragraph(algorithm)
    return lines


def _no_grade(tree: Sequence[Dataset]) -> list[str]:
    """Render the coded reason, its figures and, if images are listed, their number."""
    lines = ["No grade"]
    for item in tree:
        if is_named(item, codes.NOT_GRADED):
            code = item.ConceptCodeSequence[0].CodeValue
            lines += _entry("Reason", f"{_code(item)} ({codes.SCHEME} {code})")
        elif is_named(item, codes.COMMENT):
            lines += _entry("Figures", item.TextValue)
    images = sum(item.ValueType == "IMAGE" for item in tree)
    if images:
        lines += _entry("Images", f"{images}, all of one series")
    return lines


def _group(group: Dataset) -> list[str]:
    """Render a measurement group: one line for an image, a block with heading for the subject."""
    site = ""
    evaluations: list[tuple[str, str]] = []
    numbers: list[tuple[str, str]] = []
    image_rating = ""
    for item in group.ContentSequence:
        if item.ValueType == "NUM":
            numbers.append((_quantity(item), f"{item.MeasuredValueSequence[0].NumericValue:.3g}"))
        elif item.ValueType == "CODE" and item.RelationshipType == "CONTAINS":
            if is_named(item, codes.RATING):
                image_rating = _code(item)
            elif not is_named(item, codes.FINDING):  # redundant: presence is shown
                evaluations.append((_meaning(item), _code(item)))
        elif item.ValueType == "CODE" and "ContentSequence" in item:
            modifiers = (_code(modifier).lower() for modifier in item.ContentSequence)
            site = ", ".join([_code(item), *modifiers])
    if image_rating:
        probability = f"probability {numbers[0][1]}"
        return [f"{_INDENT}{site:<50}{image_rating:<26}{probability}"]
    rows = [f"{_INDENT * 2}{name:<{_NAME_COLUMN}}{value}" for name, value in evaluations + numbers]
    return ["", f"{_INDENT}{site}", *rows, ""]


def _quantity(item: Dataset) -> str:
    derivations = [
        _code(c).lower() for c in item.get("ContentSequence", []) if c.ValueType == "CODE"
    ]
    name = _meaning(item)
    if is_named(item, codes.GRAD_CAM):
        name = "Grad-CAM"  # the code meaning is too long for every row
    return ", ".join([name, *derivations])


def _algorithm(group: Dataset) -> str:
    def texts(name: Code) -> str:
        found = [i.TextValue for i in group.ContentSequence if is_named(i, name)]
        return "; ".join(found)

    return (
        f"{texts(codes.ALGORITHM_NAME)}, version {texts(codes.ALGORITHM_VERSION)}: "
        f"{texts(codes.ALGORITHM_PARAMETERS)}"
    )


def _row(name: str, value: str) -> str:
    return f"{name:<12}{value}"


def _entry(name: str, value: str) -> list[str]:
    """Format one row below a heading; a long value continues with a hanging indent."""
    first = f"{_INDENT}{name:<10}"
    return wrap(value, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def _meaning(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def _code(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeMeaning)


def _paragraph(text: str) -> list[str]:
    return wrap(
        text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT, break_on_hyphens=False
    )
