"""The demonstration: one study goes from a DICOM sender through the node to a PACS.

All components run on this machine. Receiver, worker, Triton, database and delivery are those of a
production system; only the study is a sample.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
from PIL import Image
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO

from core.errors import EpvsError
from core.settings import Settings, load_settings
from db import queries
from db.session import create_engine, unit_of_work
from db.views import read_view
from node import display, sending
from node.components import run_module
from node.demonstration.pacs import AE_TITLE, DemoPacs, start_demo_pacs
from node.embedded import running
from node.embedded.memory import peak_memory_mb
from node.embedded.process import free_port
from node.embedded.stack import EmbeddedStack, embedded_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

SAMPLE_STUDY = (
    Path(__file__).resolve().parents[3] / "shared" / "sample_data" / ("study-brain-siemens")
)
QUIET_PERIOD_S = 3.0
TIMEOUT_S = 180.0
ENDED = ("delivered", "committed", "rejected", "failed")


def run(work_dir: Path, *, study: Path | None = None, synthetic: bool = False) -> None:
    """Run the demonstration and print what the radiologist and the administrator see.

    Parameters
    ----------
    work_dir : Path
        Emptied first; then holds database, spool, logs and results.
    study : Path, optional
        Folder of DICOM files; by default the sample study beside the repository if it exists,
        else a synthetic one.
    synthetic : bool
        Send a synthetic study even if the sample study exists.

    Raises
    ------
    EpvsError
        A step failed; the message says which one and where its log is.
    """
    began = time.monotonic()
    if study is not None:
        _study_uid(study)  # reports a wrong folder before anything is started
    running.require_not_running(load_settings(data_dir=work_dir.absolute()))
    _empty(work_dir)
    display.heading("Starting the embedded stack")
    pacs = start_demo_pacs(work_dir.absolute())
    try:
        display.step(f"PACS: {pacs.description}, on loopback port {pacs.dicom_port}")
        with EmbeddedStack(_settings(work_dir, pacs), on_progress=display.step) as stack:
            display.step(f"ready after {stack.start_s:.1f} s")
            _demonstrate(stack, pacs, _study_folder(work_dir, study, synthetic), work_dir)
    finally:
        pacs.stop()
    display.step(f"stopped everything; {time.monotonic() - began:.1f} s in total")


def _empty(work_dir: Path) -> None:
    marker = work_dir / ".epvs-node-demo"
    if work_dir.exists() and any(work_dir.iterdir()) and not marker.exists():
        raise EpvsError(
            f"{work_dir} is not empty and was not created by a demonstration.",
            "Choose an empty folder with --work-dir.",
        )
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir(parents=True)
    marker.touch()


def _settings(work_dir: Path, pacs: DemoPacs) -> Settings:
    return embedded_settings(
        load_settings(
            data_dir=work_dir.absolute(),
            host="127.0.0.1",
            port=free_port(),
            quiet_period_s=QUIET_PERIOD_S,
            destinations=f"{AE_TITLE}@127.0.0.1:{pacs.dicom_port}",
            database_url=f"sqlite:///{work_dir.absolute() / 'epvs.sqlite'}",
        )
    )


def _study_folder(work_dir: Path, study: Path | None, synthetic: bool) -> Path:
    if study is not None:
        return study
    if SAMPLE_STUDY.is_dir() and not synthetic:
        display.step(f"study: the sample study in {SAMPLE_STUDY}")
        return SAMPLE_STUDY
    folder = work_dir / "synthetic-study"
    with display.progress("generating a synthetic study", None):
        list(run_module("training", ["sample-study", "--out", str(folder)]))
    display.step(f"study: synthetic, in {folder}")
    return folder


def _demonstrate(stack: EmbeddedStack, pacs: DemoPacs, folder: Path, work_dir: Path) -> None:
    settings = stack.settings
    display.heading("Sending and grading")
    study_uid = _study_uid(folder)
    sending.send([folder], f"{settings.ae_title}@{settings.host}:{settings.port}")
    sent_at = time.monotonic()
    engine = create_engine(settings.database_url)
    row = _wait(stack, engine, study_uid)
    seconds = time.monotonic() - sent_at - QUIET_PERIOD_S
    if row["status"] not in ("delivered", "committed"):
        raise EpvsError(
            f"The study ended in state {row['status']}: {row['reason']}.",
            f"EPVS_DATA_DIR={settings.data_dir} epvs-node show {study_uid} shows why; "
            f"the logs are in {stack.log_dir}.",
        )
    _show_radiologist(pacs, study_uid, work_dir / "result")
    _show_administrator(engine, study_uid)
    display.heading("Time and memory")
    display.step(f"{seconds:.1f} s from the last C-STORE to the report in the PACS")
    display.step(f"(plus a quiet period of {QUIET_PERIOD_S:g} s; 30 s by default)")
    with unit_of_work(engine) as session:
        timings = queries.show_study(session, study_uid)["revisions"][-1]["timings"]
    display.print_table(timings, ["stage", "seconds"])
    display.print_table(_memory(stack), ["process", "peak memory (MB)"])
    engine.dispose()


def _study_uid(folder: Path) -> str:
    for path in sending.list_files([folder]):
        try:
            header = pydicom.dcmread(path, specific_tags=["StudyInstanceUID"])
        except InvalidDicomError:
            continue
        if "StudyInstanceUID" in header:
            return str(header.StudyInstanceUID)
    raise EpvsError(f"No DICOM study in {folder}.")


def _wait(stack: EmbeddedStack, engine: Engine, study_uid: str) -> dict[str, Any]:
    deadline = time.monotonic() + TIMEOUT_S
    status = ""
    with display.progress("waiting for the result", None) as bar:
        while time.monotonic() < deadline:
            stack.supervise()
            with unit_of_work(engine, read_only=True) as session:
                rows = read_view(session, "worklist_results", study_uid=study_uid)
            if rows and rows[0]["status"] != status:
                status = rows[0]["status"]
                bar.update(bar.task_ids[0], description=f"study is {status}")
                if not display.console.is_terminal:
                    display.step(f"study is {status}")
            if status in ENDED:
                return rows[0]
            time.sleep(0.1)
    raise EpvsError(
        f"The study is still {status or 'unknown'} after {TIMEOUT_S:.0f} s.",
        f"The logs are in {stack.log_dir}.",
    )


@dataclass(frozen=True)
class _Results:
    report: Path
    pictures: list[Path]


def _save_results(pacs: DemoPacs, study_uid: str, folder: Path) -> _Results:
    """Save what the PACS received: the SR as a DICOM file, the pictures as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    report, pictures = None, []
    for content in pacs.instances(study_uid):
        dataset = pydicom.dcmread(DicomBytesIO(content))
        if dataset.Modality == "SR":
            report = folder / "report.dcm"
            report.write_bytes(content)
        elif "RGB" in dataset.get("PhotometricInterpretation", ""):
            path = folder / f"picture-{int(dataset.InstanceNumber)}.png"
            Image.fromarray(dataset.pixel_array).save(path)
            pictures.append(path)
    if report is None:
        raise EpvsError("The study is delivered, but the PACS has no structured report.")
    return _Results(report, sorted(pictures))


def _show_radiologist(pacs: DemoPacs, study_uid: str, folder: Path) -> None:
    results = _save_results(pacs, study_uid, folder)
    display.heading(f"What the radiologist sees (read back from {pacs.description})")
    for line in run_module("worker.commands.read_report", [str(results.report)]):
        display.console.print(f"  {line}")
    display.console.print()
    for path in results.pictures:
        display.step(f"picture: {path}")
    display.step(f"report:  {results.report}")


def _show_administrator(engine: Engine, study_uid: str) -> None:
    display.heading("What the administrator sees (SQL)")
    with unit_of_work(engine) as session:
        worklist = read_view(session, "worklist_results", study_uid=study_uid)
        turnaround = read_view(session, "turnaround", study_uid=study_uid)
        events = queries.show_study(session, study_uid)["events"]
    display.console.print("select * from worklist_results")
    for row in worklist:
        display.print_record(row)
    display.console.print("\nselect * from turnaround")
    for row in turnaround:
        display.print_record(row)
    display.console.print("\naudit trail")
    display.print_events(events)
    display.print_caveats(worklist)


def _memory(stack: EmbeddedStack) -> list[dict[str, Any]]:
    return [
        {"process": state.name, "peak memory (MB)": str(peak_memory_mb(state.pid))}
        for state in (component.state for component in stack.components)
        if state.pid
    ]
