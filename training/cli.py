"""Trains, evaluates and exports the models of epvs-node.

Build a cohort (cohort-from-csv for a site's own scans, cohort for synthetic ones), train a model on
it, and export the trained weights for the node. See docs/training.md.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.errors import EpvsError
from core.permissions import keep_files_private
from training import commands
from training.progress import ConsoleHandler
from worker.grading.stages.rating.haar import ENHANCEMENTS

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG: Final = logging.getLogger(__name__)
_MODELS_HELP: Final = "model repository (default: triton_models)"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[ConsoleHandler()],
    )
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    if command not in (
        commands.export,
        commands.fp16,
    ):  # Triton and the node may run under other accounts
        keep_files_private()
    try:
        command(options)
    except EpvsError as error:
        _LOG.error("%s", error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_cohort(subparsers)
    _add_cohort_from_csv(subparsers)
    _add_train(subparsers)
    _add_evaluate(subparsers)
    _add_export(subparsers)
    _add_fp16(subparsers)
    _add_check_engine(subparsers)
    _add_reproduce(subparsers)
    _add_agreement(subparsers)
    _add_dicom_cohort(subparsers)
    _add_sample_study(subparsers)
    return parser


def _command(
    subparsers: Any, name: str, text: str, handler: Callable[[argparse.Namespace], None]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=text, description=_sentence(text)
    )
    parser.set_defaults(command=handler)
    return parser


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _group(subparsers: Any, name: str, text: str) -> Any:
    parser = subparsers.add_parser(name, help=text, description=_sentence(text))
    return parser.add_subparsers(required=True, metavar="MODEL")


def _add_cohort(subparsers: Any) -> None:
    parser = _command(
        subparsers, "cohort", "generate and preprocess synthetic subjects; resumes", commands.cohort
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the cohort")
    parser.add_argument("--seed", type=int, required=True, help="determines all subjects")
    parser.add_argument("--start", type=int, default=0, help="number of the first head")
    parser.add_argument("--count", type=int, required=True, help="number of heads")
    parser.add_argument("--scans", type=int, default=1, help="scans per head, with different EPVS")
    _add_conditions(parser)
    _add_processes(parser)
    parser.add_argument(
        "--rating-only", action="store_true", help="leave out the input of the severity model"
    )


def _add_cohort_from_csv(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "cohort-from-csv",
        "read and preprocess a site's own scans and readings; resumes",
        commands.cohort_from_csv,
    )
    parser.add_argument("file", type=Path, help="CSV file; its columns are in docs/training.md")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cohort")
    _add_skip_bad_rows(parser)


def _add_train(subparsers: Any) -> None:
    models = _group(subparsers, "train", "train one of the models; resumes from its checkpoint")
    rating = _command(
        models,
        "rating",
        "train the model that rates single images from 0 to 4",
        commands.train_rating,
    )
    _add_training_options(rating, epochs=60, batch=32)
    rating.add_argument(
        "--enhancement", choices=ENHANCEMENTS, default="stationary", help="Haar enhancement"
    )
    rating.add_argument(
        "--loss", choices=("cross-entropy", "mse"), default="cross-entropy", help="loss function"
    )

    severity = _command(
        models, "severity", "train the model that detects ten or more EPVS", commands.train_severity
    )
    _add_training_options(severity, epochs=30, batch=20)
    severity.add_argument(
        "--layers", type=int, choices=(18, 50, 101, 152), default=152, help="depth of the network"
    )
    severity.add_argument(
        "--width", type=int, default=8, help="filters of the stem (default: 8; paper: 64)"
    )
    severity.add_argument(
        "--dropout", type=float, default=0.4, help="dropout before the last layer (default: 0.4)"
    )
    severity.add_argument(
        "--window", type=int, default=512, help="central pixels to train on (default: all, 512)"
    )
    severity.add_argument(
        "--start-from",
        type=Path,
        help="run of the previous phase, whose weights to start from",
    )


def _add_training_options(parser: argparse.ArgumentParser, *, epochs: int, batch: int) -> None:
    parser.add_argument(
        "--cohort", type=Path, required=True, help="folder of a cohort, or a site's CSV file"
    )
    _add_skip_bad_rows(parser)
    parser.add_argument(
        "--run", type=Path, required=True, help="folder for checkpoint and log; to resume, the same"
    )
    parser.add_argument("--epochs", type=int, default=epochs, help=f"default: {epochs}")
    parser.add_argument("--batch", type=int, default=batch, help=f"default: {batch}")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--as-published",
        action="store_true",
        help="use the paper's recipe, without this project's additions",
    )


def _add_evaluate(subparsers: Any) -> None:
    parser = _command(
        subparsers, "evaluate", "score exported models on a held-out cohort", commands.evaluate
    )
    parser.add_argument("--cohort", type=Path, required=True, help="folder of the cohort")
    parser.add_argument("--models", type=Path, default=Path("triton_models"), help=_MODELS_HELP)
    parser.add_argument("--only", choices=("rating", "severity"), help="score one model only")
    parser.add_argument("--out", type=Path, help="JSON file to write the scores to")
    parser.add_argument("--chart", type=Path, help="PNG file for the rating's reliability curves")


def _add_export(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "export",
        "export a trained model as a new version for the node",
        commands.export,
    )
    parser.add_argument("model", choices=("rating", "severity"), help="which model to export")
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument(
        "--cohort",
        type=Path,
        required=True,
        help="held-out cohort, for the scores in the model card and the golden test",
    )
    parser.add_argument("--models", type=Path, default=Path("triton_models"), help=_MODELS_HELP)
    parser.add_argument("--version", type=int, help="default: one above the highest version")
    parser.add_argument(
        "--intended-use",
        help="statement that every report of this model repeats (default: research use only, "
        "not validated, not a medical device)",
    )


def _add_fp16(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "fp16",
        "write model.fp16.onnx, which TensorRT compiles, for a version that has none",
        commands.fp16,
    )
    parser.add_argument("model", choices=("rating", "severity"), help="which model")
    parser.add_argument("--cohort", type=Path, required=True, help="scans to measure with")
    parser.add_argument("--models", type=Path, default=Path("triton_models"), help=_MODELS_HELP)
    parser.add_argument("--version", help="default: the highest version")


def _add_check_engine(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "check-engine",
        "compile model.fp16.onnx for GPUs, on the CPU, and check what was compiled",
        commands.check_engine,
    )
    parser.add_argument("model", choices=("rating", "severity"), help="which model")
    parser.add_argument("--models", type=Path, default=Path("triton_models"), help=_MODELS_HELP)
    parser.add_argument("--version", help="default: the highest version")
    parser.add_argument(
        "--gpu",
        dest="gpus",
        action="append",
        help="compute capability, for example SM89; may be repeated (default: all known)",
    )


def _add_reproduce(subparsers: Any) -> None:
    papers = _group(subparsers, "reproduce", "repeat the evaluation of a paper; resumes")
    rating = _command(
        papers,
        "rating",
        "cross-validation, ablation and baseline of the rating paper",
        commands.reproduce_rating,
    )
    _add_reproduction_options(rating, "rating")
    rating.add_argument("--epochs", type=int, default=300, help="epochs per training (paper: 300)")
    rating.add_argument("--seeds", type=int, default=3, help="repetitions (default: 3)")

    severity = _command(
        papers,
        "severity",
        "choice of the design, final test, robustness and saliency of the severity paper",
        commands.reproduce_severity,
    )
    _add_reproduction_options(severity, "severity")
    severity.add_argument(
        "--width", type=int, default=8, help="filters of the stem (default: 8; paper: 64)"
    )
    severity.add_argument(
        "--epochs", type=int, default=20, help="epochs on the central part (default: 20)"
    )
    severity.add_argument(
        "--whole-epochs", type=int, default=4, help="epochs on whole volumes (default: 4)"
    )
    severity.add_argument(
        "--window", type=int, default=224, help="pixels of the central part (default: 224)"
    )


def _add_reproduction_options(parser: argparse.ArgumentParser, model: str) -> None:
    parser.add_argument(
        "--cohort",
        type=Path,
        help="folder or CSV file of a site's cohort (default: a synthetic cohort like the paper's)",
    )
    _add_skip_bad_rows(parser)
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(f"runs/{model}-paper"),
        help="work folder; to resume, the same",
    )
    parser.add_argument(
        "--report",
        type=Path,
        default=Path(f"docs/results/{model}.md"),
        help="Markdown file to write; the plots go to the same folder",
    )
    _add_processes(parser)


def _add_agreement(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "agreement",
        "compute the agreement between readers from CSV files",
        commands.agreement,
    )
    parser.add_argument("readings", type=Path, nargs="+", help="CSV files, one per reader")


def _add_dicom_cohort(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "dicom-cohort",
        "write synthetic subjects as DICOM studies, with a CSV file of their EPVS counts",
        commands.dicom_cohort,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, required=True, help="determines all subjects")
    parser.add_argument("--count", type=int, required=True, help="number of subjects")
    _add_conditions(parser)


def _add_sample_study(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "sample-study",
        "write one synthetic DICOM study with two series",
        commands.sample_study,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=1, help="determines the study (default: 1)")


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--conditions",
        choices=("standard", "harsh"),
        default="standard",
        help="quality of the scans (default: standard)",
    )


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=int, default=1, help="parallel processes (default: 1)")


def _add_skip_bad_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-bad-rows", action="store_true", help="list invalid rows and leave them out"
    )
