"""Command line of ``python -m training``: from cohorts to exported weights and reports.

Each command imports what it needs only when it runs: ``sample-study`` must work in the node's
environment, without torch and SciPy.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.errors import EpvsError
from training.progress import ConsoleHandler, track
from worker.grading.stages.rating.haar import ENHANCEMENTS

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG: Final = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[ConsoleHandler()],
    )
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except EpvsError as error:
        _LOG.error("%s", error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True)

    cohort = commands.add_parser("cohort", help="make and preprocess synthetic subjects")
    cohort.add_argument("--out", type=Path, required=True)
    cohort.add_argument("--seed", type=int, required=True)
    cohort.add_argument("--start", type=int, default=0)
    cohort.add_argument("--count", type=int, required=True)
    cohort.add_argument("--scans", type=int, default=1, help="scans of each head")
    cohort.add_argument("--conditions", choices=("standard", "harsh"), default="standard")
    cohort.add_argument("--processes", type=int, default=1)
    cohort.add_argument("--rating-only", action="store_true", help="leave severity's input out")
    cohort.set_defaults(command=_cohort)

    site = commands.add_parser("cohort-from-csv", help="preprocess a site's own subjects; resumes")
    site.add_argument("file", type=Path, help="columns: see docs/training.md")
    site.add_argument("--out", type=Path, required=True)
    _add_skip_option(site)
    site.set_defaults(command=_cohort_from_csv)

    train = commands.add_parser("train", help="train one of the models; resumes its checkpoint")
    models = train.add_subparsers(required=True)
    rating = models.add_parser("rating", help="rating 0-4 of single images")
    _add_training_options(rating, epochs=60, batch=32)
    rating.add_argument("--enhancement", choices=ENHANCEMENTS, default="stationary", help="Haar")
    rating.add_argument("--loss", choices=("cross-entropy", "mse"), default="cross-entropy")
    rating.add_argument(
        "--as-published", action="store_true", help="without anything that the paper has not"
    )
    rating.set_defaults(command=_train_rating)
    severity = models.add_parser("severity", help="at least ten EPVS or fewer")
    _add_training_options(severity, epochs=30, batch=20)
    severity.add_argument("--layers", type=int, choices=(18, 50, 101, 152), default=152)
    severity.add_argument("--width", type=int, default=8, help="filters of the stem")
    severity.add_argument("--dropout", type=float, default=0.4)
    severity.add_argument("--window", type=int, default=512, help="central pixels used")
    severity.add_argument(
        "--as-published", action="store_true", help="without anything that the paper has not"
    )
    severity.add_argument("--start-from", type=Path, help="run to go on from")
    severity.set_defaults(command=_train_severity)

    evaluate = commands.add_parser("evaluate", help="score exported models on a held-out cohort")
    evaluate.add_argument("--cohort", type=Path, required=True)
    evaluate.add_argument("--models", type=Path, default=Path("triton_models"))
    evaluate.add_argument("--only", choices=("rating", "severity"))
    evaluate.add_argument("--out", type=Path, help="write the figures as JSON")
    evaluate.add_argument("--chart", type=Path, help="draw the rating's reliability curves (PNG)")
    evaluate.set_defaults(command=_evaluate)

    export = commands.add_parser("export", help="write a checkpoint into the model repository")
    export.add_argument("model", choices=("rating", "severity"))
    export.add_argument("--run", type=Path, required=True)
    export.add_argument("--cohort", type=Path, required=True, help="held-out; gives golden input")
    export.add_argument("--models", type=Path, default=Path("triton_models"))
    export.add_argument("--version", type=int, help="by default one above the highest")
    export.add_argument(
        "--intended-use",
        help="statement that every report of this model repeats; by default: research use only, "
        "not validated, not a medical device",
    )
    export.set_defaults(command=_export)

    reproduce = commands.add_parser("reproduce", help="a paper's evaluation; resumes")
    papers = reproduce.add_subparsers(required=True)
    rating = papers.add_parser("rating", help="cross-validation, ablation, baseline")
    _add_reproduction_options(rating, "rating")
    rating.add_argument("--epochs", type=int, default=300, help="of a training (paper: 300)")
    rating.add_argument("--seeds", type=int, default=3, help="repetitions")
    rating.set_defaults(command=_reproduce_rating)
    severity = papers.add_parser("severity", help="depth, dropout, test, robustness, saliency")
    _add_reproduction_options(severity, "severity")
    severity.add_argument("--width", type=int, default=8, help="filters of the stem (paper: 64)")
    severity.add_argument("--epochs", type=int, default=20, help="on the central part")
    severity.add_argument("--whole-epochs", type=int, default=4, help="on whole volumes")
    severity.add_argument("--window", type=int, default=224, help="pixels of the central part")
    severity.set_defaults(command=_reproduce_severity)

    agreement = commands.add_parser("agreement", help="how far readers agree")
    agreement.add_argument("readings", type=Path, nargs="+", help="one CSV file a reader")
    agreement.set_defaults(command=_agreement)

    dicom = commands.add_parser("dicom-cohort", help="synthetic subjects as DICOM, with a CSV file")
    dicom.add_argument("--out", type=Path, required=True)
    dicom.add_argument("--seed", type=int, required=True)
    dicom.add_argument("--count", type=int, required=True)
    dicom.add_argument("--conditions", choices=("standard", "harsh"), default="standard")
    dicom.set_defaults(command=_dicom_cohort)

    sample = commands.add_parser("sample-study", help="write a synthetic DICOM study")
    sample.add_argument("--out", type=Path, required=True)
    sample.add_argument("--seed", type=int, default=1)
    sample.set_defaults(command=_sample_study)
    return parser


def _add_skip_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave them out and list them")


def _add_reproduction_options(parser: argparse.ArgumentParser, model: str) -> None:
    parser.add_argument("--cohort", type=Path, help="a site's own: folder, or its CSV file")
    _add_skip_option(parser)
    parser.add_argument("--work", type=Path, default=Path(f"runs/{model}-paper"))
    parser.add_argument("--report", type=Path, default=Path(f"docs/results/{model}.md"))
    parser.add_argument("--processes", type=int, default=1)


def _add_training_options(parser: argparse.ArgumentParser, *, epochs: int, batch: int) -> None:
    parser.add_argument("--cohort", type=Path, required=True, help="folder, or a site's CSV file")
    _add_skip_option(parser)
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1)


def _cohort(options: argparse.Namespace) -> None:
    from training.cohorts.synthetic import CohortPlan, build_cohort

    heads = range(options.start, options.start + options.count)
    plan = CohortPlan(
        options.seed, options.conditions, scans=options.scans, volumes=not options.rating_only
    )
    lines = build_cohort(options.out, plan, heads, processes=options.processes)
    for line in track(lines, "heads", total=options.count):
        _LOG.info(line)


def _cohort_from_csv(options: argparse.Namespace) -> None:
    _read_csv(options.file, options.out, options)


def _read_csv(file: Path, folder: Path, options: argparse.Namespace) -> None:
    from training.cohorts.site import build_site_cohort
    from training.cohorts.site_table import read_table

    lines = build_site_cohort(file, folder, skip_bad_rows=options.skip_bad_rows)
    for line in track(lines, "scans", total=len(read_table(file).rows)):
        _LOG.info(line)


def _cohort_folder(options: argparse.Namespace, run: Path) -> Path:
    """Folder of the cohort; a site's CSV file is read into the run's own first."""
    given: Path = options.cohort
    if given.suffix.lower() != ".csv":
        return given
    folder = run / "cohort"
    _read_csv(given, folder, options)
    return folder


def _train_rating(options: argparse.Namespace) -> None:
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


def _train_severity(options: argparse.Namespace) -> None:
    from training.severity.recipe import PUBLISHED, SeverityPlan
    from training.severity.train import train_severity

    plan = SeverityPlan(
        layers=options.layers,
        width=options.width,
        dropout=options.dropout,
        window=options.window,
        epochs=options.epochs,
        batch=options.batch,
        rate=options.rate,
        **(PUBLISHED if options.as_published else {}),
    )
    train_severity(
        _cohort_folder(options, options.run),
        options.run,
        plan,
        start_from=options.start_from,
        threads=options.threads,
    )


def _evaluate(options: argparse.Namespace) -> None:
    from training.release.evaluate import evaluate_models

    evaluate_models(
        options.cohort,
        options.models,
        only=options.only,
        out=options.out,
        chart=options.chart,
    )


def _export(options: argparse.Namespace) -> None:
    from training.release.export import export_rating, export_severity

    export = export_rating if options.model == "rating" else export_severity
    folder = export(
        options.run, options.cohort, options.models, options.version, options.intended_use
    )
    _LOG.info("wrote version %s of %s", folder.name, options.model)


def _reproduce_rating(options: argparse.Namespace) -> None:
    from training.reproduction.rating.run import reproduce_rating

    lines = reproduce_rating(
        options.work,
        options.report,
        site=_cohort_folder(options, options.work) if options.cohort else None,
        epochs=options.epochs,
        seeds=options.seeds,
        processes=options.processes,
    )
    for line in track(lines, "reproducing"):
        _LOG.info(line)


def _reproduce_severity(options: argparse.Namespace) -> None:
    from training.reproduction.severity.jobs import Effort
    from training.reproduction.severity.run import reproduce_severity

    lines = reproduce_severity(
        options.work,
        options.report,
        Effort(options.width, options.epochs, options.whole_epochs, options.window),
        site=_cohort_folder(options, options.work) if options.cohort else None,
        processes=options.processes,
    )
    for line in track(lines, "reproducing"):
        _LOG.info(line)


def _agreement(options: argparse.Namespace) -> None:
    from training.cohorts.reader_agreement import agreement_report

    sys.stdout.write(agreement_report(options.readings))


def _dicom_cohort(options: argparse.Namespace) -> None:
    from training.cohorts.dicom_export import write_dicom_cohort

    lines = write_dicom_cohort(options.out, options.seed, options.count, options.conditions)
    for line in track(lines, "subjects", total=options.count):
        _LOG.info(line)


def _sample_study(options: argparse.Namespace) -> None:
    from training.synthetic.dicom import write_sample_study

    subject = write_sample_study(options.out, options.seed)
    _LOG.info(
        "wrote %s: at most %d EPVS in one slice and hemisphere",
        options.out,
        subject.severity_count,
    )
