"""Command line: ``python -m training cohort|cohort-from-csv|train|evaluate|export|sample-study``.

Each command imports what it needs only when it runs: ``sample-study`` must work in the node's
environment, without torch and SciPy.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.errors import EpvsError

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG: Final = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
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
    cohort.add_argument("--enhancement", default="stationary")
    cohort.set_defaults(command=_cohort)

    site = commands.add_parser("cohort-from-csv", help="preprocess a site's own subjects; resumes")
    site.add_argument("file", type=Path, help="columns: see docs/training.md")
    site.add_argument("--out", type=Path, required=True)
    _add_reading_options(site)
    site.set_defaults(command=_cohort_from_csv)

    train = commands.add_parser("train", help="train one of the models; resumes its checkpoint")
    train.add_argument("model", choices=("rating", "severity"))
    train.add_argument("--cohort", type=Path, required=True, help="folder, or a site's CSV file")
    _add_reading_options(train)
    train.add_argument("--run", type=Path, required=True, help="folder of checkpoint and log")
    train.add_argument("--epochs", type=int, required=True)
    train.add_argument("--threads", type=int, default=1)
    train.add_argument("--layers", type=int, default=152, help="severity: 18, 50, 101 or 152")
    train.add_argument("--width", type=int, default=8, help="severity: filters of the stem")
    train.add_argument("--window", type=int, default=512, help="severity: central pixels used")
    train.add_argument("--batch", type=int, default=None)
    train.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    train.add_argument("--start-from", type=Path, help="severity: checkpoint to go on from")
    train.set_defaults(command=_train)

    evaluate = commands.add_parser("evaluate", help="score exported models on a held-out cohort")
    evaluate.add_argument("--cohort", type=Path, required=True)
    evaluate.add_argument("--models", type=Path, default=Path("triton_models"))
    evaluate.add_argument("--only", choices=("rating", "severity"))
    evaluate.add_argument("--out", type=Path, help="write the figures as JSON")
    evaluate.set_defaults(command=_evaluate)

    export = commands.add_parser("export", help="write a checkpoint into the model repository")
    export.add_argument("model", choices=("rating", "severity"))
    export.add_argument("--run", type=Path, required=True)
    export.add_argument("--cohort", type=Path, required=True, help="held-out; gives golden input")
    export.add_argument("--models", type=Path, default=Path("triton_models"))
    export.add_argument("--version", type=int, help="by default one above the highest")
    export.set_defaults(command=_export)

    sample = commands.add_parser("sample-study", help="write a synthetic DICOM study")
    sample.add_argument("--out", type=Path, required=True)
    sample.add_argument("--seed", type=int, default=1)
    sample.set_defaults(command=_sample_study)
    return parser


def _add_reading_options(parser: argparse.ArgumentParser) -> None:
    """How a site's CSV file is read."""
    parser.add_argument("--enhancement", default="stationary", help="Haar enhancement of the crops")
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave them out and list them")


def _cohort(options: argparse.Namespace) -> None:
    from training.datasets import build_cohort

    numbers = range(options.start, options.start + options.count)
    lines = build_cohort(
        options.out, options.seed, numbers, scans=options.scans, enhancement=options.enhancement
    )
    for line in lines:
        _LOG.info(line)


def _cohort_from_csv(options: argparse.Namespace) -> None:
    _read_csv(options.file, options.out, options)


def _read_csv(file: Path, folder: Path, options: argparse.Namespace) -> None:
    from training.site_cohort import build_site_cohort

    for line in build_site_cohort(
        file, folder, enhancement=options.enhancement, skip_bad_rows=options.skip_bad_rows
    ):
        _LOG.info(line)


def _train(options: argparse.Namespace) -> None:
    if options.cohort.suffix.lower() == ".csv":
        examples = options.run / "cohort"
        _read_csv(options.cohort, examples, options)
        options.cohort = examples
    if options.model == "rating":
        from training.train_rating import train_rating

        train_rating(
            options.cohort,
            options.run,
            epochs=options.epochs,
            batch=options.batch or 32,
            rate=options.rate,
            threads=options.threads,
        )
    else:
        from training.train_severity import SeverityPlan, train_severity

        plan = SeverityPlan(
            layers=options.layers,
            width=options.width,
            window=options.window,
            epochs=options.epochs,
            batch=options.batch or 20,
            rate=options.rate,
        )
        train_severity(
            options.cohort,
            options.run,
            plan,
            start_from=options.start_from,
            threads=options.threads,
        )


def _evaluate(options: argparse.Namespace) -> None:
    from training.evaluate import evaluate_models

    evaluate_models(options.cohort, options.models, only=options.only, out=options.out)


def _export(options: argparse.Namespace) -> None:
    from training.export import export_rating, export_severity

    export = export_rating if options.model == "rating" else export_severity
    folder = export(options.run, options.cohort, options.models, options.version)
    _LOG.info("wrote version %s of %s", folder.name, options.model)


def _sample_study(options: argparse.Namespace) -> None:
    from training.synthetic.dicom import write_sample_study

    subject = write_sample_study(options.out, options.seed)
    _LOG.info(
        "wrote %s: at most %d EPVS in one slice and hemisphere",
        options.out,
        subject.severity_count,
    )
