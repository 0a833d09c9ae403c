"""Measures reports: validator messages, size of the objects, time to build and to deliver them.

``python -m tests.bench.report [--runs 5]`` builds a report on every source of the conformance tests
(made-up grades) and on the real study of the sample data, as its scanner wrote it and converted to
one Enhanced MR (graded by the shipped models; skipped if the sample data is missing). It
validates them, times the building of each object, and sends them to a real Orthanc and a real DCMTK
archive. It prints a Markdown report; ``docs/results/report.md`` is its last committed output.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from core.results import SRClass, SRVariant
from core.settings import SHIPPED_MODELS_DIR
from core.uids import derived_uid
from node.embedded.triton import EmbeddedTriton
from tests.bench.sending import archives, send
from tests.bench.validation import tables
from tests.conformance.matrix import build_reports
from tests.conformance.syntaxes import COMMANDS, Kind, write_study
from tests.support.builders.series_files import closed_study
from tests.support.builders.series_files import enhanced as packed
from tests.support.builders.sources import COMPLETED_AT, Inputs, classic, enhanced, inputs
from tests.support.paths import SAMPLE_DATA
from worker.grading.inference import InferenceClient
from worker.grading.reading.source import read_source
from worker.grading.stages.assembly import read_volume
from worker.grading.stages.grade import grade
from worker.grading.stages.rating import prepare_rating
from worker.grading.stages.registration import register
from worker.grading.stages.report.check import check_report
from worker.grading.stages.report.context import GradedContext
from worker.grading.stages.report.graded_sr import build_graded_sr
from worker.grading.stages.report.parametric_map import build_parametric_map
from worker.grading.stages.report.secondary_capture import build_secondary_captures
from worker.grading.stages.selection import select_series
from worker.grading.stages.severity import map_saliency, prepare_severity
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from core.results import Report
    from core.studies import ClosedStudy

SAMPLE: Final = SAMPLE_DATA / "study-brain-siemens"
KINDS: Final[tuple[Kind, ...]] = ("classic", "enhanced")


def pack(study: ClosedStudy, folder: Path) -> ClosedStudy:
    """Copy the series to grade of a study into one Enhanced MR."""
    series = select_series(study).require_series()
    slices = [pydicom.dcmread(location.path) for location in series.slices]
    ds = packed(slices)
    ds.SOPInstanceUID = derived_uid("bench", {"packed": study.study_uid})
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    folder.mkdir()
    ds.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    return closed_study(folder)


def graded_by_the_models(folder: Path) -> dict[str, Inputs]:
    """Grade the sample study, original and as Enhanced MR, with the shipped models."""
    if not SAMPLE.is_dir():
        return {}
    study = closed_study(SAMPLE)
    studies = {"sample study": study, "sample study, Enhanced MR": pack(study, folder / "packed")}
    found: dict[str, Inputs] = {}
    with EmbeddedTriton(folder / "triton", folder / "triton.log") as server:
        client = InferenceClient.connect(server.url, SHIPPED_MODELS_DIR, timeout_s=60)
        client.check_golden()
        for name, each in studies.items():
            found[name] = grade_with_map(each, client)
        client.close()
    return found


def grade_with_map(study: ClosedStudy, client: InferenceClient) -> Inputs:
    """Run the pipeline's stages up to the report and return the report's inputs."""
    template = load_template()
    volume = read_volume(select_series(study).require_series())
    registration = register(volume, template)
    rating_input = prepare_rating(volume, registration, enhancement="stationary")
    severity_input = prepare_severity(volume, registration, template)
    severity_output = client.assess(severity_input)
    return Inputs(
        study,
        volume,
        grade(rating_input, client.rate(rating_input), severity_output),
        map_saliency(severity_output, severity_input, volume, registration, template),
    )


def all_reports(real: dict[str, Inputs], folder: Path) -> dict[str, list[Report]]:
    """Build every report of the matrix: those of a source, and of its transfer syntaxes, as one."""
    made: dict[str, list[Report]] = {
        name: [given.build(sr_class, parametric_map=True) for sr_class in SRClass]
        for name, given in real.items()
    }
    for name, built in build_reports(folder).items():
        made.setdefault(name.removesuffix(", 3d"), []).append(built)
    for kind in KINDS:
        row = made.setdefault(f"{kind}, in each of {len(COMMANDS)} transfer syntaxes", [])
        for syntax in COMMANDS:
            study = write_study(folder / f"{kind}-{syntax}", kind, syntax)
            given = inputs(read_volume(select_series(study).require_series()))
            row.append(given.build(SRClass.COMPREHENSIVE_3D, parametric_map=True))
    return made


def sizes(reports: dict[str, list[Report]]) -> Iterator[str]:
    """Yield the size of each object; sources with equal sizes share a row."""
    yield "| source | map | summary picture | slice pictures | SR |\n|---|---|---|---|---|"
    sources: dict[str, list[str]] = {}
    for name, built in reports.items():
        found: dict[str, list[int]] = {"pm": [], "summary": [], "slices": [], "sr": []}
        for each in built:
            pictures = [item for item in each.objects if item.kind == "sc"]
            for item in each.objects:
                picture = "summary" if item in pictures[:1] else "slices"
                found[picture if item in pictures else item.kind].append(len(item.content))
        sources.setdefault(" | ".join(map(_bytes, found.values())), []).append(name)
    for row, names in sources.items():
        yield f"| {'; '.join(names)} | {row} |"


def _bytes(found: Sequence[int]) -> str:
    return ", ".join(f"{size:,}" for size in dict.fromkeys(found)) or "–"


def build_once(given: Inputs) -> dict[str, float]:
    """Build every object as `build_report` does; seconds of each step."""
    seconds: dict[str, float] = {}
    last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[name], last = now - last, now

    source = read_source(given.volume.series)
    lap("headers of the source")
    context = GradedContext(
        study=given.study,
        volume=given.volume,
        source=source,
        grade=given.grade,
        saliency=given.saliency,
        completed_at=source.local(COMPLETED_AT),
        station_name="epvs-bench",
        intended_use=given.grade.intended_use,
    )
    pm = build_parametric_map(context)
    lap("map")
    pictures = build_secondary_captures(context)
    lap("four pictures")
    build_graded_sr(context, SRVariant(SRClass.COMPREHENSIVE_3D, parametric_map=True), pm)
    lap("SR, Comprehensive 3D")
    document = build_graded_sr(context, SRVariant(SRClass.COMPREHENSIVE, parametric_map=True), pm)
    lap("SR, Comprehensive")
    check_report([pm, *pictures, document], context)
    lap("check before sending")
    given.build(parametric_map=True)
    lap("**whole report, one SR**")
    given.build(variants=[SRVariant(sr_class, pm) for sr_class in SRClass for pm in (True, False)])
    lap("**whole report, four SRs**")
    return seconds


def medians(measured: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    """Yield median, fastest and slowest seconds: a row for each step, a column for each source."""
    yield f"| | {' | '.join(measured)} |\n|---|{'---|' * len(measured)}"
    for step in next(iter(measured.values()))[0]:
        cells = []
        for runs in measured.values():
            values = [run[step] for run in runs]
            median = statistics.median(values)
            cells.append(f"{median:.3f} ({min(values):.3f} – {max(values):.3f})")
        yield f"| {step} | {' | '.join(cells)} |"


def timed(sources: dict[str, Inputs], runs: int, folder: Path) -> Iterator[str]:
    """Yield what building and sending take: after one run to warm up, the sources in turns."""
    built: dict[str, list[dict[str, float]]] = {name: [] for name in sources}
    for number in range(runs + 1):
        for name, given in sources.items():
            seconds = build_once(given)
            if number:
                built[name].append(seconds)
    yield "\n## Seconds to build\n"
    yield from medians(built)
    with archives(folder) as destinations:
        sent: dict[str, dict[str, list[dict[str, float]]]] = {
            each: {name: [] for name in sources} for each in destinations
        }
        for number in range(runs + 1):
            # Another time of completion, hence other UIDs: no archive has it already.
            at = COMPLETED_AT + timedelta(seconds=number)
            for name, given in sources.items():
                built_now = given.build(parametric_map=True, completed_at=at)
                for each, (destination, proofs) in destinations.items():
                    seconds = send(built_now, folder, destination, proofs)
                    if number:
                        sent[each][name].append(seconds)
    for each, measured in sent.items():
        yield f"\n## Seconds to deliver: {each}\n"
        yield from medians(measured)


def report(runs: int, folder: Path) -> Iterator[str]:
    """Yield the lines of the report."""
    for name in ("sources", "written", "classic", "enhanced"):
        (folder / name).mkdir()
    real = graded_by_the_models(folder)
    yield "# Reports: validity, size, time\n"
    yield (
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; times are medians of "
        f"{runs} runs after one to warm up, fastest – slowest in brackets. "
        + ("The sample study is graded by the shipped models" if real else "No sample study")
        + "; all other grades are made up.\n"
    )
    for name, given in real.items():
        grade = given.grade
        yield (
            f"- {name}: rating {grade.rating}, P(≥ 10 EPVS) {grade.severity_probability:.3f}, "
            f"{len(given.volume.slices)} slices"
        )
    reports = all_reports(real, folder / "sources")
    yield "\n## Validators: errors / warnings\n"
    yield from tables(reports, folder / "written")
    yield "\nThe transfer syntaxes, in which the reports are the same byte for byte:\n"
    yield from (f"- `{syntax}` {UID(syntax).name}" for syntax in COMMANDS)
    yield "\n## Bytes of each object\n"
    yield from sizes(reports)
    made_up = {
        "small classic MR": inputs(classic(folder / "classic")),
        "small Enhanced MR": inputs(enhanced(folder / "enhanced")),
    }
    yield from timed(real | made_up, runs, folder)
    yield f"\nLoad at the end: {os.getloadavg()[0]:.1f}."


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for line in report(options.runs, Path(name)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
