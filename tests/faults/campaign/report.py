"""The report of the campaigns: ``docs/results/reliability.md``, one section for each site."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING, Final

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections import Counter

    from tests.faults.campaign.run import Outcome

REPORT: Final = ROOT / "docs" / "results" / "reliability.md"
_HEADINGS: Final = {
    "embedded": "One machine, SQLite",
    "hosts": "Four hosts, PostgreSQL",
}
_INTRODUCTION: Final = """# Fault campaigns

Last output of `python -m tests.faults.campaign` for each site. Senders store continuously, archives
misbehave, and faults begin at random times, the same for a seed. In the end everything is mended;
what was acknowledged, graded and delivered is compared with what senders and archives know, and the
checks of `epvs-node doctor --deep` run. On one machine the node is `epvs-node up` with its models;
it starts again by itself what is killed. On four hosts grading is scripted (0 to 2 s), except for
what a worker with the models takes (`--models`); all else is the node's own.
"""


def write_report(site: str, command: str, outcome: Outcome) -> str:
    """Replace the section of a site in the report; return the section."""
    section = _section(site, command, outcome)
    sections = _read_sections()
    sections[_HEADINGS[site]] = section
    texts = [sections[heading] for heading in _HEADINGS.values() if heading in sections]
    REPORT.write_text("\n".join([_INTRODUCTION, *texts]))
    return section


def _read_sections() -> dict[str, str]:
    if not REPORT.exists():
        return {}
    parts = re.split(r"^(?=## )", REPORT.read_text(), flags=re.MULTILINE)[1:]
    return {part.splitlines()[0].removeprefix("## "): part.rstrip() + "\n" for part in parts}


def _section(site: str, command: str, outcome: Outcome) -> str:
    found = outcome.found
    figures = {
        "faults": sum(outcome.faults.values()),
        **found.counts,
        "C-STOREs answered with an error, or connections lost": sum(outcome.statuses.values())
        - outcome.statuses["0x0000"],
        "parts that ended by themselves, and were started again": sum(
            outcome.ended_by_themselves.values()
        ),
        "times that all faults were mended, and a result came before the next fault": len(
            outcome.returns_s
        ),
        "seconds to that result: median, longest": _median_and_longest(outcome.returns_s),
        "work moved after the last fault was mended, s": f"{outcome.moved_after_s:.1f}",
        "everything was done, s": f"{outcome.drained_after_s:.1f}",
        "lost": f"**{len(found.lost)}**",
        "doubled": f"**{len(found.doubled)}**",
        "stuck": f"**{len(found.stuck)}**",
        "other violations": f"**{len(found.other)}**",
    }
    return f"""## {_HEADINGS[site]}
`python -m tests.faults.campaign {command}`

| | |
|---|---|
{_rows(figures)}

| fault | times |
|---|---|
{_rows(_sorted(outcome.faults))}
{_rows({f"archive {name}": n for name, n in _sorted(outcome.archives).items()})}
"""


def _median_and_longest(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f}, {max(seconds):.1f}" if seconds else "none"


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return {str(name): counts[name] for name in sorted(counts)}


def _rows(values: dict[str, object] | dict[str, int]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in values.items())
