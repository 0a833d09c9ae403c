"""Fuzzes what a worker reads: ``python -m tests.fuzz.worker --minutes 30 --seed 1``.

Each example takes real files of the sample data, in any transfer syntax, changes some of them and
lets a `Reader` read the study; some of those that can be decoded are registered too. Beside them,
HL7 acknowledgments, storage commitment reports and SRs are changed and read. Writes
``docs/results/fuzz-worker.md``. Ends with an error at the first violation, whose files it keeps.

An example is a function of its number and the seed, so ``--first N`` goes on where a run ended.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from core.commitment import respond_to_report
from core.errors import Failed
from core.studies import ClosedStudy, SpooledInstance
from tests.fuzz.mutations import change_bytes, change_values, damage
from tests.support.builders.sources import classic, inputs
from tests.support.paths import ROOT, SAMPLE_DATA
from worker.commands.read_report import NotAReport, read_report
from worker.delivery.hl7.sending import interpret_acknowledgment
from worker.grading.errors import NotGradable
from worker.grading.reading import Reader
from worker.grading.stages.assembly import assemble
from worker.grading.stages.registration import register
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPORT: Final = ROOT / "docs" / "results" / "fuzz-worker.md"
LONGEST_S: Final = 10.0
MOST_MB: Final = 700.0
_LONGEST_REGISTRATION_S: Final = 60.0
_SHARE_REGISTERED: Final = 0.2
_ACKNOWLEDGMENT: Final = (
    b"MSH|^~\\&|RIS|HOSPITAL|EPVSNODE||20260131093000||ACK^R01|7|P|2.5.1\r"
    b"MSA|AA|4711\rERR|||207^Application internal error^HL70357|E\r"
)
SYNTAXES: Final = (
    *("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"),
    *("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"),
    "1.2.840.10008.1.2.5",
)


class Violation(Exception):
    """An invariant was violated."""


@dataclass
class Campaign:
    """One run: the material, the reader, and what was seen.

    Parameters
    ----------
    folder : Path
        For the files of the current example.
    """

    folder: Path
    reader: Reader = field(default_factory=Reader)
    seen: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    peak_mb: float = 0.0
    series: list[bytes] = field(default_factory=list)
    singles: list[bytes] = field(default_factory=list)
    sr: bytes = b""

    def __post_init__(self) -> None:
        self.series = [p.read_bytes() for p in sorted(_files("study-brain-siemens/t2-tse-axial"))]
        self.singles = [p.read_bytes() for p in sorted(_files(".")) if p.stat().st_size < 600_000]
        self.template = load_template()
        with tempfile.TemporaryDirectory() as name:
            report = inputs(classic(Path(name))).build()
        self.sr = report.objects[-1].content
        log = logging.getLogger("worker.grading.reading.reader")
        log.setLevel(logging.INFO)
        log.addFilter(self._watch)

    def _watch(self, record: logging.LogRecord) -> bool:
        found = re.search(r"peak_mb=(\d+)", record.getMessage())
        self.last_mb = float(found[1]) if found else 0.0
        self.peak_mb = max(self.peak_mb, self.last_mb)
        return False

    def example(self, number: int, seed: int) -> None:
        """Run one example.

        Raises
        ------
        Violation
            It took too long or too much memory, or ended otherwise than with a reason.
        """
        chance = random.Random(f"{seed} {number}")
        study = self._study(chance)
        self.last_mb = 0.0
        started = time.monotonic()
        try:
            reading = self.reader.read_study(study)
        except NotGradable as refusal:
            self.seen[f"not graded: {refusal.reason}"] += 1
            reading = None
        except Failed as error:
            raise Violation(f"failed: {error.code}: {error.message}") from error
        took = time.monotonic() - started
        self.longest_s = max(self.longest_s, took)
        if took > LONGEST_S or self.last_mb > MOST_MB:
            raise Violation(f"reading took {took:.1f} s and {self.last_mb:.0f} MB")
        if reading is not None:
            reason, _ = reading.refusal or (reading.selection.reason, "")
            self.seen[f"read: {reason}"] += 1
            if reading.voxels is not None and chance.random() < _SHARE_REGISTERED:
                self._register(reading.require_slices()[:2])
        _others(chance, self.folder / "sr.dcm", self.sr)

    def _study(self, chance: random.Random) -> ClosedStudy:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if chance.random() < 0.5:
            files = [chance.choice(self.singles)]
            hits = {0}
        else:
            first = chance.randrange(len(self.series) - 17)
            files = self.series[first : first + 17]
            hits = {chance.randrange(17) for _ in range(chance.randint(1, 3))}
        syntax = chance.choice(SYNTAXES)
        instances = []
        for number, content in enumerate(files):
            path = self.folder / f"{number:03}.dcm"
            path.write_bytes(_changed(content, syntax, chance) if number in hits else content)
            header = _identity(content)
            instances.append(SpooledInstance(path, *header[:3]))
        return ClosedStudy(_identity(files[0])[3], "fuzz", 1, tuple(instances))

    def _register(self, slices: tuple[object, object]) -> None:
        started = time.monotonic()
        try:
            register(assemble(*slices), self.template, threads=1)  # type: ignore[arg-type]
            self.seen["registered"] += 1
        except NotGradable as refusal:
            self.seen[f"registration: {refusal.reason}"] += 1
        if time.monotonic() - started > _LONGEST_REGISTRATION_S:
            raise Violation(f"registration took {time.monotonic() - started:.0f} s")


def _files(folder: str) -> Iterator[Path]:
    for path in (SAMPLE_DATA / folder).rglob("*"):
        if path.is_file() and path.open("rb").read(132)[128:] == b"DICM":
            yield path


def _identity(content: bytes) -> tuple[str, str, str, str]:
    header = dcmread(BytesIO(content), stop_before_pixels=True, force=True)
    tags = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")
    return tuple(str(header.get(tag) or "1.2.3") for tag in tags)  # type: ignore[return-value]


def _changed(content: bytes, syntax: str, chance: random.Random) -> bytes:
    """Change values, then bytes; values that cannot be written leave the file as it was."""
    if chance.random() < 0.6:
        with suppress(Exception):  # pydicom's writer may refuse what is wrong on purpose
            content = change_values(content, syntax, chance)
    if chance.random() < 0.7:
        content = change_bytes(content, chance)
    return content


def _others(chance: random.Random, sr: Path, sr_content: bytes) -> None:
    """Read changed acknowledgments, commitment reports and SRs: no other exception may leave."""
    for _ in range(20):
        interpret_acknowledgment(damage(_ACKNOWLEDGMENT, chance), "4711")
    event = Dataset()
    event.TransactionUID = "1.2.3"
    event.ReferencedSOPSequence = [Dataset()]
    event.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3.4"
    event.FailedSOPSequence = [Dataset()]
    event.FailedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3.5"
    event.FailedSOPSequence[0].FailureReason = 0x0110
    file = BytesIO()
    dcmwrite(file, event, implicit_vr=True, little_endian=True)
    for _ in range(5):
        try:
            changed = dcmread(BytesIO(damage(file.getvalue(), chance)), force=True)
        except Exception:  # noqa: BLE001 - the receiver and pynetdicom refuse such a message
            continue
        respond_to_report(changed, lambda _report: None, lambda _refusal: None)
    for _ in range(2):
        sr.write_bytes(change_bytes(sr_content, chance))
        with suppress(NotAReport):
            read_report(sr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first example")
    options = parser.parse_args(arguments)
    logging.getLogger("core.commitment").disabled = True
    with tempfile.TemporaryDirectory() as name:
        campaign = Campaign(Path(name) / "study")
        began, number = time.monotonic(), options.first
        with closing(campaign.reader):
            while time.monotonic() - began < options.minutes * 60:
                try:
                    campaign.example(number, options.seed)
                except Exception:
                    kept = Path("build", "fuzz-worker-violation")
                    shutil.copytree(campaign.folder, kept, dirs_exist_ok=True)
                    print(f"example {number}, seed {options.seed}; files: {kept}", file=sys.stderr)
                    raise
                number += 1
                if number % 500 == 0:
                    print(f"{number} examples, {campaign.longest_s:.1f} s", flush=True)
    REPORT.write_text("\n".join(report(campaign, options, number - options.first)))


def report(campaign: Campaign, options: argparse.Namespace, n_examples: int) -> Iterator[str]:
    """Yield the lines of the report."""
    yield "# Fuzzing the worker\n"
    yield (
        f"Last output of `python -m tests.fuzz.worker --minutes {options.minutes:g} "
        f"--seed {options.seed}`: {n_examples} examples.\n\n"
        "An example changes real files of the sample data (bytes, lengths, values, structure, code "
        "streams; in seven transfer syntaxes), lets the process that reads studies read them, and "
        "registers some of what can be decoded. Beside each, 20 changed HL7 acknowledgments, 5 "
        "changed storage commitment reports and 2 changed SRs are read.\n"
    )
    yield (
        "Violations found: none (the command ends at the first). "
        f"Longest reading {campaign.longest_s:.1f} s (limit {LONGEST_S:g}), most memory "
        f"{campaign.peak_mb:.0f} MB (limit {MOST_MB:g}).\n"
    )
    yield "| ended as | times |\n|---|---|"
    for ending, times in sorted(campaign.seen.items()):
        yield f"| {ending} | {times} |"
    yield ""


if __name__ == "__main__":
    main()
