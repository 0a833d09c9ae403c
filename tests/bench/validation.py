"""Counts the validator messages on the reports of `tests.bench.report`."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from core.results import ObjectKind, Report
from tests.support.servers.validators import PixelMed, dciodvfy_messages, dsrdump

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS: Final = ("sr, dciodvfy", "sr, dsrdump", "sr, PixelMed", "sc, dciodvfy", "pm, dciodvfy")


@dataclass
class Findings:
    """How many errors and warnings a validator had about the objects of one class."""

    errors: int = 0
    warnings: int = 0

    def add(self, errors: int, warnings: int) -> None:
        self.errors += errors
        self.warnings += warnings

    def __str__(self) -> str:
        return f"{self.errors} / {self.warnings}"


def validate(
    report: Report, folder: Path, pixelmed: PixelMed, messages: Counter[tuple[str, str]]
) -> dict[str, Findings]:
    """Count errors and warnings for each of `COLUMNS`; add the warnings to `messages`."""
    found: dict[str, Findings] = {}
    for number, item in enumerate(report.objects):
        path = folder / f"{number}.dcm"
        path.write_bytes(item.content)
        lines = dciodvfy_messages(path)
        warnings = [line for line in lines if line.startswith("Warning")]
        found.setdefault(f"{item.kind}, dciodvfy", Findings()).add(
            sum(line.startswith("Error") for line in lines), len(warnings)
        )
        messages.update(("dciodvfy", line.split(" = ")[0]) for line in warnings)  # no values
        if item.kind is not ObjectKind.STRUCTURED_REPORT:
            continue
        problems = dsrdump(path)
        warnings = [line for line in problems if line.startswith("W:")]
        found["sr, dsrdump"] = Findings(len(problems) - len(warnings), len(warnings))
        messages.update(("dsrdump", line) for line in warnings)
        warnings = [line for line in pixelmed.messages(path) if line.startswith("Warning")]
        found["sr, PixelMed"] = Findings(len(pixelmed.errors(path)), len(warnings))
        # Each names the path to its content item first, then the item, then what is wrong.
        messages.update(("PixelMed", f"Warning: {line.rsplit('/', 1)[-1]}") for line in warnings)
    return found


def tables(reports: dict[str, list[Report]], folder: Path) -> Iterator[str]:
    """Yield the numbers for each source and the texts of the warnings."""
    messages: Counter[tuple[str, str]] = Counter()
    total = {column: Findings() for column in COLUMNS}
    yield f"| source | reports | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}"
    with PixelMed() as pixelmed:
        for name, built in reports.items():
            row: dict[str, Findings] = {}
            for report in built:
                for column, each in validate(report, folder, pixelmed, messages).items():
                    row.setdefault(column, Findings()).add(each.errors, each.warnings)
                    total[column].add(each.errors, each.warnings)
            yield f"| {name} | {len(built)} | {' | '.join(str(row.get(c, '–')) for c in COLUMNS)} |"
    everything = [report for built in reports.values() for report in built]
    objects = sum(len(report.objects) for report in everything)
    yield (
        f"| **all, {objects} objects** | {len(everything)} "
        f"| {' | '.join(str(each) for each in total.values())} |"
    )
    yield "\n| validator | times | warning |\n|---|---|---|"
    for (validator, text), times in messages.most_common():
        yield f"| {validator} | {times} | {re.sub(r'[<>|]', '', text)} |"
