"""The whole pipeline on real scanner output, with a real Triton and small stand-in models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from core.results import GradedStudy, NotGradedStudy, ObjectKind, SRClass, SRVariant
from tests.support.builders.series_files import closed_study
from tests.support.builders.stand_in_models import write_stand_ins
from tests.support.paths import SAMPLE_DATA
from worker.grading.inference import InferenceClient
from worker.grading.pipeline import GradingOptions, grade_study
from worker.grading.reading import Reader
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from node.embedded.triton import EmbeddedTriton

STAGES = [
    *("read_study", "assemble", "register", "check_quality", "prepare_rating", "rate"),
    *("prepare_severity", "assess", "map_saliency", "grade", "build_report"),
]
COMPLETED_AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


@pytest.fixture
def inference(tmp_path: Path, serve: Callable[[Path], EmbeddedTriton]) -> Iterator[InferenceClient]:
    models = write_stand_ins(tmp_path / "models")
    client = InferenceClient.connect(serve(models).url, models, 30.0)
    yield client
    client.close()


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


@pytest.mark.sample_data
def test_every_stage_runs_and_is_timed(inference: InferenceClient, reader: Reader) -> None:
    study = closed_study(SAMPLE_DATA / "study-brain-siemens")
    graded = grade_study(
        study,
        COMPLETED_AT,
        read=reader.read_study,
        inference=inference,
        template=load_template(),
        options=GradingOptions(
            variants=(
                SRVariant(SRClass.COMPREHENSIVE, parametric_map=True),
                SRVariant(SRClass.COMPREHENSIVE_3D, parametric_map=False),
            )
        ),
    )
    assert isinstance(graded, GradedStudy)
    assert graded.grade.intended_use == inference.intended_use
    assert inference.intended_use.statement.encode() in graded.report.objects[-1].content
    assert [timing.stage for timing in graded.timings] == STAGES
    assert len(graded.grade.images) == 6
    kinds = [entry.kind for entry in graded.report.objects]
    assert kinds.count(ObjectKind.PARAMETRIC_MAP) == 1
    assert kinds.count(ObjectKind.STRUCTURED_REPORT) == 2
    assert ObjectKind.SECONDARY_CAPTURE in kinds
    uids = [entry.sop_instance_uid for entry in graded.report.objects]
    assert len(set(uids)) == len(uids)
    (selected,) = (verdict for verdict in graded.verdicts if verdict.selected)
    assert selected.series_uid == graded.series_uid


@pytest.mark.sample_data
def test_a_study_that_is_not_graded_has_a_verdict_on_every_series(
    inference: InferenceClient, reader: Reader
) -> None:
    folder = min(path for path in (SAMPLE_DATA / "reject").iterdir() if path.is_dir())
    study = closed_study(folder)
    result = grade_study(
        study,
        COMPLETED_AT,
        read=reader.read_study,
        inference=inference,
        template=load_template(),
        options=GradingOptions(),
    )
    assert isinstance(result, NotGradedStudy)
    assert {verdict.series_uid for verdict in result.verdicts} == {
        instance.series_uid for instance in study.instances
    }
    assert not any(verdict.selected for verdict in result.verdicts)
    assert [timing.stage for timing in result.timings] == ["read_study"]
    assert (result.report, result.report_failure) == (None, None)
