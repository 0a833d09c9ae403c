"""The intended use that a site writes into ``model.json`` is what every result states."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from PIL import ImageDraw

from core.destinations import Hl7Destination
from core.errors import Failed
from core.results import ObjectKind, Report
from db.grading.results import store_graded
from db.models import GradeRow
from db.session import unit_of_work
from tests.support.builders.records import after, claim, graded_study, queue_study
from tests.support.builders.sources import Inputs, classic, inputs, not_graded, refused, uid
from tests.support.shipped_models import newest_description
from worker.delivery.hl7.result import result_message
from worker.grading.inference.client import InferenceClient
from worker.grading.stages.report import codes
from worker.grading.stages.report.content_tree import is_named, walk

if TYPE_CHECKING:
    from sqlalchemy import Engine

SITE = "Trained on the readings of Example Hospital; research use only, not validated."
CLEARED = "Marketed as decision support; see the instructions for use."
SHIPPED = newest_description("rating")["intended_use"]


def with_models(given: Inputs, folder: Path, **fields: dict[str, Any]) -> Inputs:
    """The graded study, graded by models that are described in `folder`."""
    for name in ("rating", "severity"):
        description = newest_description(name)
        version = folder / name / description["version"]
        version.mkdir(parents=True)
        (version / "model.json").write_text(json.dumps(description | fields.get(name, {})))
    client = InferenceClient.connect("127.0.0.1:1", folder, timeout_s=1)
    rating, severity = client.models
    assert (
        client.intended_use
        == replace(given.grade, rating_model=rating, severity_model=severity).intended_use
    )
    return replace(given, grade=replace(given.grade, rating_model=rating, severity_model=severity))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is drawn into a picture."""
    texts: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def record(self: Any, xy: Any, text: str, *args: Any, **kwargs: Any) -> None:
        texts.append(text)
        draw(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return texts


@pytest.fixture
def given(tmp_path: Path) -> Inputs:
    (tmp_path / "source").mkdir()
    return inputs(classic(tmp_path / "source"))


def data_sets(report: Report, kind: ObjectKind) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(BytesIO(o.content)) for o in report.objects if o.kind is kind]


def texts(sr: pydicom.Dataset) -> dict[str, str]:
    items = list(walk(sr))
    return {
        code.meaning: next(item.TextValue for item in items if is_named(item, code))
        for code in (codes.INTENDED_USE, codes.CONCLUSION)
    }


def test_what_a_site_writes_is_in_sr_pictures_sql_and_hl7(
    given: Inputs, tmp_path: Path, drawn: list[str], database_engine: Engine
) -> None:
    fields = {"intended_use": SITE}
    site = with_models(given, tmp_path / "models", rating=fields, severity=fields)
    report = site.build(parametric_map=True)

    (sr,) = data_sets(report, ObjectKind.STRUCTURED_REPORT)
    stated = texts(sr)
    assert stated["Intended use statement"] == SITE
    assert stated["Conclusion"].endswith(f" {SITE}")
    assert SITE in " ".join(report.summary.split())
    message = result_message(sr, Hl7Destination("192.0.2.7", 2575), application="EPVS")
    assert f"||{SITE}||" in message.content.decode()

    pictures = data_sets(report, ObjectKind.SECONDARY_CAPTURE)
    assert [picture.ImageComments for picture in pictures] == [SITE] * 4
    assert " ".join(drawn).count(SITE) == len(pictures)

    with unit_of_work(database_engine) as session:
        held = claim(session, queue_study(session))
        graded = replace(graded_study(held.revision_id), grade=site.grade, report=report)
        paths = [Path(item.sop_instance_uid) for item in report.objects]
        assert store_graded(session, held, graded, paths=paths, destinations=[], now=after(40))
        assert session.get_one(GradeRow, held.revision_id).caveat == SITE

    for item in report.objects:
        assert b"synthetic data" not in item.content


def test_statements_that_differ_are_each_made_once_with_the_name_of_the_model(
    given: Inputs, tmp_path: Path, drawn: list[str]
) -> None:
    mixed = with_models(given, tmp_path / "models", rating={"intended_use": SITE})
    expected = f"EPVS rating CNN: {SITE} EPVS severity 3D-ResNet-152: {SHIPPED}"
    assert mixed.grade.intended_use.statement == expected
    (sr,) = data_sets(mixed.build(), ObjectKind.STRUCTURED_REPORT)
    assert texts(sr)["Intended use statement"] == expected
    assert " ".join(drawn).count(expected) == 4


def test_both_shipped_models_make_one_statement(given: Inputs, tmp_path: Path) -> None:
    shipped = with_models(given, tmp_path / "models")
    assert shipped.grade.intended_use.statement == SHIPPED
    report = shipped.build(parametric_map=True)
    for kind, title in (
        (ObjectKind.STRUCTURED_REPORT, "EPVS grade (RESEARCH USE ONLY)"),
        (ObjectKind.SECONDARY_CAPTURE, "EPVS grade and saliency (RESEARCH USE ONLY)"),
        (ObjectKind.PARAMETRIC_MAP, "EPVS Grad-CAM (RESEARCH USE ONLY)"),
    ):
        assert {ds.SeriesDescription for ds in data_sets(report, kind)} == {title}


def test_titles_say_research_use_only_unless_neither_model_is_restricted(
    given: Inputs, tmp_path: Path
) -> None:
    cleared = {"intended_use": CLEARED, "research_use_only": False}
    one = with_models(given, tmp_path / "one", rating=cleared).build(parametric_map=True)
    assert all(b"RESEARCH USE ONLY" in item.content for item in one.objects)
    both = with_models(given, tmp_path / "both", rating=cleared, severity=cleared)
    report = both.build(parametric_map=True)
    assert not any(b"research" in item.content.lower() for item in report.objects)
    (saliency,) = data_sets(report, ObjectKind.PARAMETRIC_MAP)
    assert saliency.ContentQualification == "PRODUCT"
    refusal = not_graded(given.study, refused(uid("classic")), intended_use=both.grade.intended_use)
    (sr,) = data_sets(refusal, ObjectKind.STRUCTURED_REPORT)
    assert sr.SeriesDescription == "EPVS not graded"
    assert texts(sr)["Intended use statement"] == CLEARED


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (None, "has no intended_use"),
        ("", "empty"),
        (["Research"], "empty"),
        ("Nur für Forschung", "ASCII"),
        ("Research\nonly", "one line"),
        ("x" * 401, "longer than 400"),
    ],
)
def test_a_model_without_a_usable_statement_is_refused(
    tmp_path: Path, statement: object, problem: str
) -> None:
    for name in ("rating", "severity"):
        description = newest_description(name)
        del description["intended_use"]
        if statement is not None:
            description["intended_use"] = statement
        version = tmp_path / name / description["version"]
        version.mkdir(parents=True)
        (version / "model.json").write_text(json.dumps(description))
    with pytest.raises(Failed, match=problem) as refusal:
        InferenceClient.connect("127.0.0.1:1", tmp_path, timeout_s=1)
    assert refusal.value.code == "model-description-invalid"


def test_the_longest_statements_of_two_models_fit_on_every_picture(
    given: Inputs, tmp_path: Path, drawn: list[str]
) -> None:
    words = {name: f"{name} {'research use only, ' * 30}"[:400].strip() for name in "ab"}
    two = with_models(
        given,
        tmp_path / "models",
        rating={"intended_use": words["a"]},
        severity={"intended_use": words["b"]},
    )
    pictures = data_sets(two.build(), ObjectKind.SECONDARY_CAPTURE)
    assert " ".join(drawn).count(words["b"]) == 4
    for picture in pictures:
        last_line = picture.pixel_array[-60:]
        assert last_line.max() > 200  # text, not the black beyond a page's end
