"""What a load needs, computed from the figures of `tests.bench.scaleout`.

``python -m tests.bench.sizing [--images 200] …`` reads ``docs/results/scaleout.md`` and prints the
tables of ``docs/sizing.md``; ``--write`` puts them there. Every line is one formula over measured
figures and the assumptions, which are options.
"""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import asdict, dataclass, fields
from typing import Final, Self

from tests.support.paths import ROOT

RESULTS: Final = ROOT / "docs" / "results" / "scaleout.md"
PAGE: Final = ROOT / "docs" / "sizing.md"
_MARKS: Final = ("<!-- tests.bench.sizing -->\n", "<!-- end -->\n")
LOADS: Final = (10, 1_000, 100_000)
"""Studies a day."""
_BUSY: Final = 0.7
"""Share of its capacity up to which a part may be used at the peak."""
_MB, _GB, _TB = 1e6, 1e9, 1e12
_WORKER_GB: Final = 3.0
"""Memory for each study at a time: limit of ``docker-compose.yml``."""
_NOTIFIED_PER_SWEEP: Final = 100
"""Studies that one sweep of the housekeeper closes, and notifications of each kind."""


@dataclass(frozen=True)
class Figures:
    """Measured figures; a name says what and in which unit."""

    images_per_study: float
    image_bytes: float
    receiver_cpu_ms_per_image: float
    postgres_cpu_ms_per_image: float
    database_bytes_per_image: float
    wal_bytes_per_image: float
    transactions_per_image: float
    worker_cpu_s_per_study: float
    triton_cpu_s_per_study: float
    delivery_cpu_s_per_study: float
    postgres_cpu_ms_per_study: float
    redis_cpu_ms_per_study: float
    housekeeper_cpu_ms_per_study: float
    report_bytes_per_study: float
    database_bytes_per_study: float
    wal_bytes_per_study: float
    transactions_per_study: float
    statements_per_study: float
    redis_commands_per_study: float
    coordination_cpu_ms_per_study: float
    audit_transactions_per_s: float
    idle_transactions_per_s: float
    idle_redis_commands_per_s: float
    idle_cpu_share: float

    def as_table(self) -> str:
        """Return the figures as a table of Markdown."""
        rows = [f"| `{name}` | {value:.4g} |" for name, value in asdict(self).items()]
        return "\n".join(["| figure | measured |", "|---|---|", *rows])

    @classmethod
    def parse(cls, page: str) -> Self:
        """Read the figures from a page that has their table."""
        found = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|$", page, re.MULTILINE))
        return cls(**{field.name: float(found[field.name]) for field in fields(cls)})


@dataclass(frozen=True)
class Assumptions:
    """What the load looks like."""

    images: int = 200
    """Images of a study, of any series: all are stored, a T2 series of them is graded."""
    image_kb: float = 400.0
    hours: float = 10.0
    """In which a day's studies arrive."""
    peak: float = 3.0
    """Busiest hour over the average of these hours."""
    audit_per_study: float = 5.0
    """Transactions that append to the audit trail: opened, closed and queued, claimed, graded,
    delivered (one destination)."""


def _number(value: float) -> str:
    if value >= 10 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.2g}" if value >= 0.001 else "< 0.001"


def capacity(f: Figures, a: Assumptions) -> dict[str, float]:
    """How many studies an hour one of each carries, if it does nothing else and is never idle."""
    image_s = 1e-3 * a.images
    return {
        "core of grading workers": 3600 / f.worker_cpu_s_per_study,
        "Gbit/s of network into the receivers": 3600 * 1e9 / 8 / (a.images * a.image_kb * 1e3),
        "core of receivers": 3600 / (image_s * f.receiver_cpu_ms_per_image),
        "core of Triton without a GPU": 3600 / f.triton_cpu_s_per_study,
        "core of PostgreSQL": 3600
        / (image_s * f.postgres_cpu_ms_per_image + 1e-3 * f.postgres_cpu_ms_per_study),
        "core of delivering workers": 3600 / f.delivery_cpu_s_per_study,
        "housekeeper's sweeps (two do not do more)": 3600.0 * _NOTIFIED_PER_SWEEP,
        "audit trail (there is one)": 3600 * f.audit_transactions_per_s / a.audit_per_study,
    }


def utilisation(per_day: int, f: Figures, a: Assumptions) -> dict[str, float]:
    """How many cores, or how much of what there is once, the peak keeps busy, by part.

    Parameters
    ----------
    per_day : int
        Studies.
    f : Figures
    a : Assumptions
    """
    per_s = per_day / a.hours / 3600 * a.peak
    images_per_s = per_s * a.images
    ms = 1e-3
    return {
        "grading workers, cores": per_s * f.worker_cpu_s_per_study,
        "Triton on the CPU, cores": per_s * f.triton_cpu_s_per_study,
        "delivering workers, cores": per_s * f.delivery_cpu_s_per_study,
        "receivers, cores": images_per_s * f.receiver_cpu_ms_per_image * ms,
        "PostgreSQL, cores": ms
        * (images_per_s * f.postgres_cpu_ms_per_image + per_s * f.postgres_cpu_ms_per_study),
        "Redis and housekeeper, cores": per_s
        * (f.redis_cpu_ms_per_study + f.housekeeper_cpu_ms_per_study)
        * ms,
        "audit trail, share of one": per_s * a.audit_per_study / f.audit_transactions_per_s,
        "housekeeper's sweeps, share of one": per_s / _NOTIFIED_PER_SWEEP,
    }


def purchase(per_day: int, f: Figures, a: Assumptions) -> dict[str, str]:
    """What to buy, with every part used up to 70 % at the peak."""
    busy = utilisation(per_day, f, a)
    per_s = per_day / a.hours / 3600 * a.peak
    image_bytes = a.image_kb * 1e3
    at_once = max(1, math.ceil(per_s * f.worker_cpu_s_per_study / _BUSY))
    stored = per_day * 365 * (a.images * image_bytes + f.report_bytes_per_study)
    rows = per_day * 365 * (a.images * f.database_bytes_per_image + f.database_bytes_per_study)
    wal = per_s * (a.images * f.wal_bytes_per_image + f.wal_bytes_per_study)

    def cores(*parts: str) -> str:
        return _number(max(1, math.ceil(sum(busy[f"{part}, cores"] for part in parts) / _BUSY)))

    return {
        "studies/h at the peak": _number(per_s * 3600),
        "images/s at the peak": _number(per_s * a.images),
        "grading workers: cores": _number(at_once),
        "grading workers: memory, GB": _number(at_once * _WORKER_GB),
        "Triton on the CPU: cores": cores("Triton on the CPU"),
        "receivers: cores (processes)": cores("receivers"),
        "delivering workers: cores": cores("delivering workers"),
        "PostgreSQL: cores": cores("PostgreSQL"),
        "network into the receivers, Mbit/s": _number(per_s * a.images * image_bytes * 8 / 1e6),
        "spool: writes at the peak, MB/s": _number(per_s * a.images * image_bytes / _MB),
        "spool: TB a year": _number(stored / _TB),
        "database: GB a year": _number(rows / _GB),
        "PostgreSQL's log: MB/s at the peak": _number(wal / _MB),
    }


def _table(title: str, columns: dict[int, dict[str, str]]) -> str:
    head = " | ".join(f"{load:,} a day" for load in columns)
    lines = [f"| {title} | {head} |", "|---" * (len(columns) + 1) + "|"]
    for name in next(iter(columns.values())):
        cells = " | ".join(column[name] for column in columns.values())
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def tables(f: Figures, a: Assumptions) -> str:
    """Return the tables: what one of each carries, what is busy, what to buy."""
    ordered = sorted(capacity(f, a).items(), key=lambda item: item[1])
    carried = "\n".join(f"| {name} | {_number(value)} |" for name, value in ordered)
    busy = {
        load: {name: _number(value) for name, value in utilisation(load, f, a).items()}
        for load in LOADS
    }
    bought = {load: purchase(load, f, a) for load in LOADS}
    return (
        f"| one | studies/h |\n|---|---|\n{carried}\n\n"
        f"{_table('busy at the peak', busy)}\n\n{_table('to buy', bought)}\n"
    )


def with_tables(page: str, text: str) -> str:
    """Return a page with `text` in the place of its tables."""
    before, rest = page.split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    return f"{before}{_MARKS[0]}{text}{_MARKS[1]}{after}"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for field in fields(Assumptions):
        kind = int if field.type == "int" else float
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    parser.add_argument("--write", action="store_true", help="into docs/sizing.md")
    options = vars(parser.parse_args())
    write = options.pop("write")
    text = tables(Figures.parse(RESULTS.read_text()), Assumptions(**options))
    if write:
        PAGE.write_text(with_tables(PAGE.read_text(), text))
    print(text)


if __name__ == "__main__":
    main()
