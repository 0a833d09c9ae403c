"""Series selection: `ClosedStudy` → `Selection`, the axial T2 series to grade.

Only headers are read. Every series gets a verdict, which is stored in SQL.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.reasons import Reason
from core.results import SeriesVerdict
from worker.grading.records import SelectedSeries, Selection, SliceLocation
from worker.grading.stages.selection.geometry import Stack, build_stack
from worker.grading.stages.selection.headers import Frame, UnreadableHeader, read_frames
from worker.grading.stages.selection.rules import is_near_miss, judge, rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.studies import ClosedStudy, SpooledInstance

__all__ = ["select_series"]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A series that meets all requirements."""

    series_uid: str
    stack: Stack
    n_instances: int

    @property
    def pixel_spacing_mm(self) -> tuple[float, float]:
        between_rows, between_columns = self.stack.frames[0].pixel_spacing_mm or (0.0, 0.0)
        return between_rows, between_columns

    @property
    def preference(self) -> tuple[float, float, int, str]:
        """Sort key: finest pixels, closest slices, most slices; rounded to ignore noise."""
        return (
            round(max(self.pixel_spacing_mm), 2),
            round(self.stack.spacing_mm, 1),
            -len(self.stack.frames),
            self.series_uid,
        )

    def verdict(self, reason: Reason) -> SeriesVerdict:
        first = self.stack.frames[0]
        detail = (
            f"{len(self.stack.frames)} slices {self.stack.spacing_mm:.2f} mm apart, "
            f"pixels of {max(self.pixel_spacing_mm):.2f} mm, "
            f"TE {first.echo_time_ms:g} ms, TR {first.repetition_time_ms:g} ms"
        )
        return SeriesVerdict(self.series_uid, reason, detail, self.n_instances)


def select_series(study: ClosedStudy) -> Selection:
    """Pick the axial T2-weighted spin-echo series of a study.

    Returns
    -------
    Selection
        Where no series fits, its reason is that of the near miss which passed the most checks (see
        `rules.PRECEDENCE`); without a near miss, the reason that all MR series share, or
        `Reason.NO_SUITABLE_SERIES`.

    Raises
    ------
    Failed
        A stored file is missing.
    """
    by_series: dict[str, list[SpooledInstance]] = defaultdict(list)
    for instance in study.instances:
        by_series[instance.series_uid].append(instance)

    judged = [_judge_series(uid, instances) for uid, instances in sorted(by_series.items())]
    candidates = sorted(
        (item for item in judged if isinstance(item, _Candidate)), key=lambda c: c.preference
    )
    refusals = tuple(item for item in judged if isinstance(item, SeriesVerdict))
    if not candidates:
        reason, detail = _reason_for_study(refusals)
        return Selection(refusals, None, reason, detail)
    best, *others = candidates
    verdicts = (
        best.verdict(Reason.SELECTED),
        *(other.verdict(Reason.LESS_SUITABLE) for other in others),
        *refusals,
    )
    return Selection(verdicts, _selected(study, best))


def _judge_series(
    series_uid: str, instances: Sequence[SpooledInstance]
) -> _Candidate | SeriesVerdict:
    frames: list[Frame] = []
    problems: list[str] = []
    for instance in instances:
        try:
            frames.extend(read_frames(instance))
        except UnreadableHeader as problem:
            problems.append(str(problem))
    findings = judge(frames, len(instances), problems)
    if not findings and (stack := build_stack(frames)) is not None:
        return _Candidate(series_uid, stack, len(instances))
    (reason, detail), *others = findings
    also = "".join(f"; also {other.value}: {text}" for other, text in others)
    return SeriesVerdict(series_uid, reason, detail + also, len(instances))


def _reason_for_study(verdicts: tuple[SeriesVerdict, ...]) -> tuple[Reason, str]:
    """Why a study without a suitable series cannot be graded, and the figures behind it."""
    near = [verdict for verdict in verdicts if is_near_miss(verdict.reason)]
    if near:
        closest = max(near, key=lambda verdict: (rank(verdict.reason), verdict.n_instances))
        return closest.reason, closest.detail
    if not verdicts:
        return Reason.NO_IMAGES, "the study holds no instances"
    # Documents beside the scans, or CT beside MR, are not part of the reason.
    images = (
        [verdict for verdict in verdicts if rank(verdict.reason) > rank(Reason.NOT_MR)]
        or [verdict for verdict in verdicts if verdict.reason is Reason.NOT_MR]
        or list(verdicts)
    )
    reasons = sorted({verdict.reason for verdict in images}, key=rank)
    if len(reasons) == 1:
        return reasons[0], images[0].detail
    summary = ", ".join(
        f"{sum(verdict.reason is reason for verdict in images)} {reason.value}"
        for reason in reasons
    )
    return Reason.NO_SUITABLE_SERIES, f"series: {summary}"


def _selected(study: ClosedStudy, best: _Candidate) -> SelectedSeries:
    slices = tuple(
        SliceLocation(
            frame.path, frame.sop_instance_uid, frame.sop_class_uid, frame.frame_number, (x, y, z)
        )
        for frame, (x, y, z) in zip(
            best.stack.frames, best.stack.positions_mm.tolist(), strict=True
        )
    )
    r0, r1, r2, c0, c1, c2 = best.stack.frames[0].orientation or (0.0,) * 6
    return SelectedSeries(
        study_uid=study.study_uid,
        series_uid=best.series_uid,
        slices=slices,
        orientation=(r0, r1, r2, c0, c1, c2),
        pixel_spacing_mm=best.pixel_spacing_mm,
        slice_spacing_mm=best.stack.spacing_mm,
    )
