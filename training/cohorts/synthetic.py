"""A cohort folder of synthetic subjects, put through the node's own preprocessing.

The registration is the real one, with its errors; where the head truly lies is used for nothing but
to say how large these are.
"""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk

from core.errors import ConfigurationError
from training.cohorts.examples import DESCRIPTION, Example, align, label_inputs, store_example
from training.cohorts.ground_truth import severity_truth
from training.cohorts.scans import volume_on_grid
from training.synthetic.conditions import CONDITIONS, STANDARD
from training.synthetic.dicom import as_image
from training.synthetic.subjects import Subject, scan_head
from worker.grading.errors import NotGradable
from worker.grading.stages.rating import prepare_rating
from worker.grading.stages.severity import prepare_severity
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.grading.records import Registration, Template, Volume

CROP_CENTRES: Final = np.array([(side * 22.0, 0.0, 0.5) for side in (-1, 1)])
"""MNI (LPS mm) of the middle of the crops."""


@dataclass(frozen=True)
class CohortPlan:
    """What a synthetic cohort consists of.

    Attributes
    ----------
    seed : int
    conditions : str
        Key of `CONDITIONS`.
    protocol : str, optional
        Key of `PROTOCOLS`; each head's own when not given.
    scans : int
        Scans of each head, with other EPVS every time. They lie in the same place, so the first
        scan's registration serves them all: that is what makes further scans cheap.
    volumes : bool
        Whether the severity model's input is made too.
    """

    seed: int
    conditions: str = STANDARD.name
    protocol: str | None = None
    scans: int = 1
    volumes: bool = True


def build_cohort(
    folder: Path, plan: CohortPlan, heads: range, *, processes: int = 1
) -> Iterator[str]:
    """Make, preprocess and store the heads of a synthetic cohort; what is there is kept.

    Yields
    ------
    str
        One line a head, for the progress display.

    Raises
    ------
    ConfigurationError
        The folder holds another cohort.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_from = {"kind": "synthetic", **asdict(plan)}
    described = folder / DESCRIPTION
    if described.is_file() and json.loads(described.read_text(encoding="utf-8")) != made_from:
        raise ConfigurationError(f"{folder} holds another cohort.", "Name a new folder.")
    described.write_text(json.dumps(made_from) + "\n", encoding="utf-8")
    missing = [number for number in heads if not _is_made(folder, plan, number)]
    if processes == 1:
        yield from (_make_head(folder, plan, number) for number in missing)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(_make_head, folder, plan), missing)


def _scan_file(folder: Path, head: int, scan: int) -> Path:
    return folder / f"{head:05d}-{scan}.npz"


def _refusal_file(folder: Path, head: int) -> Path:
    return folder / f"{head:05d}.rejected"


def _is_made(folder: Path, plan: CohortPlan, head: int) -> bool:
    made = all(_scan_file(folder, head, scan).exists() for scan in range(plan.scans))
    return made or _refusal_file(folder, head).exists()


def _make_head(folder: Path, plan: CohortPlan, head: int) -> str:
    template = load_template()
    registration = None
    most = []
    scans = scan_head(plan.seed, head, plan.protocol, CONDITIONS[plan.conditions])
    for scan, subject in enumerate(itertools.islice(scans, plan.scans)):
        try:
            registration = registration or align(as_volume(subject), template)
            example = make_example(subject, registration, template, volumes=plan.volumes)
        except NotGradable as rejection:
            _refusal_file(folder, head).write_text(f"{rejection}\n", encoding="utf-8")
            return f"{head}: {rejection}"
        store_example(_scan_file(folder, head, scan), example)
        most.append(example.severity_count)
    return f"{head}: at most {most} EPVS in one slice and hemisphere"


def as_volume(subject: Subject) -> Volume:
    """Wrap a synthetic subject in the record that the pipeline's stages take."""
    name = f"synthetic-{subject.seed}-{subject.number}"
    return volume_on_grid(sitk.Cast(as_image(subject), sitk.sitkFloat32), Path(name))


def make_example(
    subject: Subject, registration: Registration, template: Template, *, volumes: bool = True
) -> Example:
    """Preprocess one synthetic scan as the node does, and label both inputs.

    Raises
    ------
    NotGradable
        A graded slice lies outside the scan.
    """
    volume = as_volume(subject)
    rating = prepare_rating(volume, registration, enhancement="none")
    severity = prepare_severity(volume, registration, template) if volumes else None
    counts = [subject.counts(crop.side)[crop.slice_index] for crop in rating.placements]
    example = label_inputs(
        rating,
        severity,
        counts=np.array(counts, dtype=np.int64),
        severity_count=subject.severity_count,
    )
    facts = asdict(subject.imperfections) | {
        "protocol": subject.protocol,
        "registration_error_mm": registration_error_mm(subject, registration),
    }
    known = replace(example, facts=facts)
    if severity is None:
        return known
    truth = severity_truth(subject, registration, template, severity)
    return replace(known, severity_truth=truth)


def registration_error_mm(subject: Subject, registration: Registration) -> float:
    """Mean distance between where the crops' centres were found and where they truly lie."""
    truth = subject.pose.to_patient(CROP_CENTRES)
    found = [registration.affine.TransformPoint(centre.tolist()) for centre in CROP_CENTRES]
    return float(np.linalg.norm(truth - np.array(found), axis=1).mean())
