"""Synthetic cohorts: generated scans of known EPVS counts, preprocessed as the node does.

The scans are registered for real, with the errors that this has. The true position of the head is
used only to measure those errors.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk

from core.errors import ConfigurationError
from training.cohorts.examples import Example, label_inputs, register_scan
from training.cohorts.folder import read_description, store_example, write_description
from training.cohorts.ground_truth import ground_truth_of
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
"""Centres of the right and left crops, MNI LPS mm."""


@dataclass(frozen=True)
class CohortPlan:
    """Parameters of a synthetic cohort.

    Attributes
    ----------
    seed : int
    conditions : str
        Key of `CONDITIONS`.
    protocol : str, optional
        Key of `PROTOCOLS`; by default each head draws its own.
    scans : int
        Scans of each head, each with different EPVS. They share the head's position, so that the
        registration of the first scan serves all of them.
    volumes : bool
        Whether to compute the severity model's input too.
    """

    seed: int
    conditions: str = STANDARD.name
    protocol: str | None = None
    scans: int = 1
    volumes: bool = True


def build_cohort(
    folder: Path, plan: CohortPlan, heads: range, *, processes: int = 1
) -> Iterator[str]:
    """Generate, preprocess and store the heads of a synthetic cohort that are still missing.

    Yields
    ------
    str
        One line per head, for the progress display.

    Raises
    ------
    ConfigurationError
        The folder holds another cohort.
    """
    folder.mkdir(parents=True, exist_ok=True)
    description = {"kind": "synthetic", **asdict(plan)}
    if read_description(folder) not in (None, description):
        raise ConfigurationError(f"{folder} holds another cohort.", "Name a new folder.")
    write_description(folder, description)
    missing = [number for number in heads if not _is_built(folder, plan, number)]
    if processes == 1:
        yield from (_build_head(folder, plan, number) for number in missing)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(_build_head, folder, plan), missing)


def _scan_file(folder: Path, head: int, scan: int) -> Path:
    return folder / f"{head:05d}-{scan}.npz"


def _rejection_file(folder: Path, head: int) -> Path:
    return folder / f"{head:05d}.rejected"


def _is_built(folder: Path, plan: CohortPlan, head: int) -> bool:
    built = all(_scan_file(folder, head, scan).exists() for scan in range(plan.scans))
    return built or _rejection_file(folder, head).exists()


def _build_head(folder: Path, plan: CohortPlan, head: int) -> str:
    template = load_template()
    registration = None
    severity_counts = []
    scans = scan_head(plan.seed, head, plan.protocol, CONDITIONS[plan.conditions])
    for scan, subject in enumerate(itertools.islice(scans, plan.scans)):
        try:
            registration = registration or register_scan(as_volume(subject), template)
            example = make_example(subject, registration, template, volumes=plan.volumes)
        except NotGradable as error:
            _rejection_file(folder, head).write_text(f"{error}\n", encoding="utf-8")
            return f"{head}: {error}"
        store_example(_scan_file(folder, head, scan), example)
        severity_counts.append(example.severity_count)
    return f"{head}: at most {severity_counts} EPVS in one slice and hemisphere"


def as_volume(subject: Subject) -> Volume:
    """Return a synthetic scan as the `Volume` that the pipeline's stages take."""
    name = f"synthetic-{subject.seed}-{subject.number}"
    return volume_on_grid(sitk.Cast(as_image(subject), sitk.sitkFloat32), Path(name))


def make_example(
    subject: Subject, registration: Registration, template: Template, *, volumes: bool = True
) -> Example:
    """Preprocess one synthetic scan as the node does, and label both inputs.

    Raises
    ------
    NotGradable
        A slice to grade lies outside the scan.
    """
    volume = as_volume(subject)
    rating = prepare_rating(volume, registration, enhancement="none")
    severity = prepare_severity(volume, registration, template) if volumes else None
    counts = [subject.counts(crop.side)[crop.slice_index] for crop in rating.placements]
    labelled = label_inputs(
        rating,
        severity,
        counts=np.array(counts, dtype=np.int64),
        severity_count=subject.severity_count,
    )
    facts = asdict(subject.imperfections) | {
        "protocol": subject.protocol,
        "registration_error_mm": registration_error_mm(subject, registration),
    }
    example = replace(labelled, facts=facts)
    if severity is None:
        return example
    ground_truth = ground_truth_of(subject, registration, template, severity)
    return replace(example, ground_truth=ground_truth)


def registration_error_mm(subject: Subject, registration: Registration) -> float:
    """Mean distance between the true and the registered positions of the crop centres."""
    true_positions = subject.pose.to_patient(CROP_CENTRES)
    found = [registration.affine.TransformPoint(centre.tolist()) for centre in CROP_CENTRES]
    return float(np.linalg.norm(true_positions - np.array(found), axis=1).mean())
