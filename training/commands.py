"""Commands of ``python -m training``, called with the parsed options (`training.cli`).

Each command imports what it needs when it runs: `sample_study` must work in the node's environment,
which has neither torch nor SciPy.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from training.progress import track

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

_LOG: Final = logging.getLogger(__name__)


def cohort(options: Namespace) -> None:
    """Generate and preprocess synthetic subjects."""
    from training.cohorts.synthetic import CohortPlan, build_cohort

    heads = range(options.start, options.start + options.count)
    plan = CohortPlan(
        options.seed, options.conditions, scans=options.scans, volumes=not options.rating_only
    )
    lines = build_cohort(options.out, plan, heads, processes=options.processes)
    for line in track(lines, "heads", total=options.count):
        _LOG.info(line)


def cohort_from_csv(options: Namespace) -> None:
    """Read and preprocess a site's scans and readings."""
    _read_csv(options.file, options.out, options)


def _read_csv(file: Path, folder: Path, options: Namespace) -> None:
    from training.cohorts.site import build_site_cohort
    from training.cohorts.site_table import read_table

    lines = build_site_cohort(file, folder, skip_bad_rows=options.skip_bad_rows)
    for line in track(lines, "scans", total=len(read_table(file).rows)):
        _LOG.info(line)


def _cohort_folder(options: Namespace, run: Path) -> Path:
    """Return the cohort's folder; a CSV file is first read into a folder of the run."""
    given: Path = options.cohort
    if given.suffix.lower() != ".csv":
        return given
    folder = run / "cohort"
    _read_csv(given, folder, options)
    return folder


def train_rating(options: Namespace) -> None:
    """Train the rating model."""
    from training.rating.recipe import RatingPlan, shipped_plan
    from training.rating.train import train_rating

    recipe = RatingPlan() if options.as_published else shipped_plan(options.epochs)
    plan = replace(
        recipe,
        epochs=options.epochs,
        batch=options.batch,
        rate=options.rate,
        loss=options.loss,
        enhancement=options.enhancement,
    )
    train_rating(_cohort_folder(options, options.run), options.run, plan, threads=options.threads)


def train_severity(options: Namespace) -> None:
    """Train the severity model."""
    from training.severity.recipe import PAPER_RECIPE, SeverityPlan
    from training.severity.train import train_severity

    plan = SeverityPlan(
        layers=options.layers,
        width=options.width,
        dropout=options.dropout,
        window=options.window,
        epochs=options.epochs,
        batch=options.batch,
        rate=options.rate,
        **(PAPER_RECIPE if options.as_published else {}),
    )
    train_severity(
        _cohort_folder(options, options.run),
        options.run,
        plan,
        start_from=options.start_from,
        threads=options.threads,
    )


def evaluate(options: Namespace) -> None:
    """Score exported models."""
    from training.release.evaluate import evaluate_models

    evaluate_models(
        options.cohort,
        options.models,
        only=options.only,
        out=options.out,
        chart=options.chart,
    )


def export(options: Namespace) -> None:
    """Export a trained model as a new version."""
    from training.release.export import export_rating, export_severity

    export = export_rating if options.model == "rating" else export_severity
    folder = export(
        options.run, options.cohort, options.models, options.version, options.intended_use
    )
    _LOG.info("wrote version %s of %s", folder.name, options.model)
    digest = hashlib.sha256((folder / "model.json").read_bytes()).hexdigest()
    _LOG.info("for the node to serve it: EPVS_TRUSTED_MODELS=%s", digest)


def fp16(options: Namespace) -> None:
    """Write the FP16 file of an exported version."""
    from training.release.precision.write import add_fp16

    file = add_fp16(options.models, options.model, options.version, options.cohort)
    _LOG.info("wrote %s", file)


def check_engine(options: Namespace) -> None:
    """Compile a version for GPUs and check what was compiled."""
    from core.model_versions import newest_version
    from training.release.engines import GPUS, require_engine

    model = options.models / options.model
    version = model / (options.version or newest_version(model))
    for gpu in options.gpus or GPUS:
        engine = require_engine(version, gpu)
        _LOG.info(
            "%s: compiled in %.1f s, %.1f MB, types, shapes and batches as meant",
            gpu,
            engine.seconds,
            engine.size_bytes / 1e6,
        )


def reproduce_rating(options: Namespace) -> None:
    """Repeat the evaluation of the rating paper."""
    from training.reproduction.rating.run import reproduce_rating

    lines = reproduce_rating(
        options.work,
        options.report,
        site=_cohort_folder(options, options.work) if options.cohort else None,
        epochs=options.epochs,
        repetitions=options.seeds,
        processes=options.processes,
    )
    for line in track(lines, "reproducing"):
        _LOG.info(line)


def reproduce_severity(options: Namespace) -> None:
    """Repeat the evaluation of the severity paper."""
    from training.reproduction.severity.designs import Budget
    from training.reproduction.severity.run import reproduce_severity

    lines = reproduce_severity(
        options.work,
        options.report,
        Budget(options.width, options.epochs, options.whole_epochs, options.window),
        site=_cohort_folder(options, options.work) if options.cohort else None,
        processes=options.processes,
    )
    for line in track(lines, "reproducing"):
        _LOG.info(line)


def agreement(options: Namespace) -> None:
    """Print the agreement between readers."""
    from training.cohorts.reader_agreement import agreement_report

    sys.stdout.write(agreement_report(options.readings))


def dicom_cohort(options: Namespace) -> None:
    """Write synthetic subjects as DICOM studies."""
    from training.cohorts.dicom_export import write_dicom_cohort

    lines = write_dicom_cohort(options.out, options.seed, options.count, options.conditions)
    for line in track(lines, "subjects", total=options.count):
        _LOG.info(line)


def sample_study(options: Namespace) -> None:
    """Write one synthetic DICOM study."""
    from training.synthetic.dicom import write_sample_study

    subject = write_sample_study(options.out, options.seed)
    _LOG.info(
        "wrote %s: at most %d EPVS in one slice and hemisphere",
        options.out,
        subject.severity_count,
    )
