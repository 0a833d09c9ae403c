"""Model cards (``MODEL.md``), generated from ``model.json``."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from training.markdown import table, wrap

_SYNTHETIC_LIMITS = """\
- **Synthetic data; not for clinical use.** No scan of a person was used in training or evaluation.
  The performance on real scans has not been validated.
- The synthetic heads are derived from the template that they are registered to, with simple skulls
  and one kind of lacune and of white-matter lesion. Scores on them are optimistic.
- Several scans of one head share the registration of the first.
- The labels are the true numbers of simulated EPVS, which no reader would reach. The agreement of
  readers, and with it the best possible score, is lower on real scans.
- Only axial T2 scans with pixels of 0.43–0.57 mm and slices of 2.5–5 mm were simulated.

## Licence

Apache-2.0, like the project. The anatomy is derived from the MNI ICBM152 2009a maps, whose notice
is in `training/assets/NOTICE.md`.
"""
_SITE_LIMITS = """\
- **Not validated; not for clinical use.** The labels are the readings of one site. Scanners,
  protocols and readers of other sites are not represented.
- If readers gave grades, the true counts are unknown.
- If the held-out cohort is synthetic, its scores say nothing about scans of people.
"""


def rating_card(info: dict[str, Any]) -> str:
    """Return ``MODEL.md`` of the rating model.

    Parameters
    ----------
    info : dict
        Content of ``model.json``.
    """
    m, training = info["metrics"], info["training"]
    filters = ", ".join(str(count) for count in info["architecture"]["filters"])
    scores = [
        ("accuracy, image", f"{m['image_accuracy']:.3f}"),
        ("no-information rate, image", f"{m['image_most_frequent_rating']:.3f}"),
        ("within one rating, image", f"{m['image_within_one']:.3f}"),
        ("Spearman, image", f"{m['image_spearman']:.3f}"),
        ("ICC(2,1) with the ground truth, image (95 % CI)", _interval(m["image_icc"])),
        ("accuracy, subject (highest of six)", f"{m['subject_accuracy']:.3f}"),
        ("within one rating, subject", f"{m['subject_within_one']:.3f}"),
        ("Spearman, subject", f"{m['subject_spearman']:.3f}"),
        ("ICC(2,1) with the ground truth, subject (95 % CI)", _interval(m["subject_icc"])),
        ("accuracy, subject (majority of six)", f"{m['subject_majority_accuracy']:.3f}"),
    ]
    return wrap(f"""\
{_introduction(info)}

Rates the EPVS in one image of the basal ganglia from 0 to 4 (0; 1–10; 11–20; 21–40; more than 40
EPVS). The architecture follows the rating paper (Applied Sciences, 2021): five convolutions with
ReLU, average pooling, two fully connected layers, softmax. The filter counts ({filters}) and the
batch normalisation are not from the paper. {info["architecture"]["parameters"]:,} parameters.

{_training_data(info)} {_rating_recipe(training)}

## Held-out scores

{_held_out(info)}, {m["images"]} images, preprocessed by the node's own stages and scored with this
ONNX file (`python -m training evaluate`).

{table(("", ""), scores)}

Images by true rating (rows) and predicted rating (columns):

{table(("", *range(5)), ((rating, *row) for rating, row in enumerate(m["image_confusion"])))}

## Calibration

The logits are divided by a temperature of {training["temperature"]}, fitted on the validation
subjects. The expected calibration error over ten bins is {_calibration_error(m, "image"):.3f} for
the probability of an image's rating and {_calibration_error(m, "subject"):.3f} for the probability
of a subject's rating. The latter is the probability that the highest of the six ratings is this
one, assuming that their errors are independent.

{_reliability(m)}

## Errors

{_errors(m)}

{_limits(info)}""")


def _introduction(info: dict[str, Any]) -> str:
    return f"# {info['display_name']} (version {info['version']})\n\n> {info['intended_use']}"


def _rating_recipe(training: dict[str, Any]) -> str:
    plan = training["plan"]
    additions = []
    if plan["count_weight"]:
        additions.append("log(1 + count) is an auxiliary target")
    if plan["averaging"]:
        additions.append(f"the weights are averaged (decay {plan['averaging']:g} per step)")
    if plan["balanced"]:
        additions.append("all ratings are sampled equally often")
    if plan["degraded_copies"]:
        additions.append(
            f"each image has {plan['degraded_copies']} copies with simulated motion and noise"
        )
    beyond = f" Additions to the paper's recipe: {'; '.join(additions)}." if additions else ""
    return (
        f"Loss: {plan['loss']}; Adam with a learning rate of {plan['rate']:g} and cosine decay; "
        f"batches of {plan['batch']}; rotation by up to 30° and flips.{beyond}"
    )


def _score(value: float | None) -> str:
    """Format a score; there is none if no image or subject belongs to its group."""
    return "unknown" if value is None else f"{value:.3f}"


def _interval(values: list[float]) -> str:
    return f"{values[0]:.3f} ({values[1]:.3f}–{values[2]:.3f})"


def _calibration_error(metrics: dict[str, Any], level: str) -> float:
    return float(metrics[f"{level}_calibration"]["expected_calibration_error"])


def _reliability(metrics: dict[str, Any]) -> str:
    """Return a table with both reliability curves, the highest confidence first."""
    curves = [
        reversed(metrics[f"{level}_calibration"]["confidence_accuracy_count"])
        for level in ("image", "subject")
    ]
    rows = [
        _reliability_cells(image) + _reliability_cells(subject)
        for image, subject in zip_longest(*curves)
    ]
    header = [
        f"{column}, {level}"
        for level in ("image", "subject")
        for column in ("predictions", "confidence", "accuracy")
    ]
    return table(header, rows)


def _reliability_cells(bin_: list[float] | None) -> tuple[object, ...]:
    if bin_ is None:
        return ("", "", "")
    confidence, accuracy, count = bin_
    return count, f"{confidence:.2f}", f"{accuracy:.2f}"


def _errors(metrics: dict[str, Any]) -> str:
    """Describe near which counts and under which circumstances images are rated wrongly."""
    near = metrics["near_boundary"]
    low = near["wrong_too_low"] / max(near["wrong"], 1)
    there, elsewhere = _score(near["near_accuracy"]), _score(near["far_accuracy"])
    text = (
        f"- Near the boundaries: {near['wrong_near']} of {near['wrong']} wrongly rated images have "
        f"a count within two of another rating. The accuracy is {there} there "
        f"and {elsewhere} elsewhere. {low:.0%} of the wrongly rated images are "
        "rated too low."
    )
    groups = metrics.get("accuracy_by_circumstance")
    if not groups:
        return text
    error = metrics["registration_error_mm"]
    rows = (
        (name, group["scans"], f"{group['image_accuracy']:.3f}") for name, group in groups.items()
    )
    return (
        f"{text}\n"
        f"- By circumstance (registration error: median {error['median']:.1f} mm, 95th percentile "
        f"{error['95th percentile']:.1f} mm):\n\n"
        f"{table(('', 'scans', 'image accuracy'), rows)}"
    )


def severity_card(info: dict[str, Any]) -> str:
    """Return ``MODEL.md`` of the severity model; `info` is the content of ``model.json``."""
    m, a = info["metrics"], info["architecture"]
    (tn, fp), (fn, tp) = m["confusion"]
    phases = "\n".join(
        f"{number}. {phase['epochs']} epochs of {phase['scans']} scans, central {phase['window']} "
        f"× {phase['window']} pixels, batch {phase['batch']}, "
        f"learning rate up to {phase['rate']:g}."
        for number, phase in enumerate(info["training"]["phases"], 1)
    )
    scores = [
        ("AUC", m["auc"]),
        ("accuracy (95 % CI)", _interval([m["accuracy"], *m["accuracy_95ci"]])),
        ("no-information rate", f"{m['no_information_rate']:.3f}"),
        (
            "sensitivity, specificity, F1",
            f"{m['sensitivity']:.3f}, {m['specificity']:.3f}, {m['f1']:.3f}",
        ),
        ("true and false negatives, true and false positives", f"{tn}, {fn}, {tp}, {fp}"),
        (
            f"counts of 5 to 15 only ({m['borderline_subjects']} subjects): AUC",
            m["borderline_auc"],
        ),
        ("counts of 5 to 15 only: accuracy", _score(m["borderline_accuracy"])),
    ]
    return wrap(f"""\
{_introduction(info)}

Predicts the probability of at least ten EPVS in the slice and hemisphere with most of them, from 16
slices of 512 × 512 pixels, with its Grad-CAM (in closed form, on the last feature map,
1 × 16 × 16). The architecture follows the severity paper (Scientific Reports, 2022): a 3-D residual
network of {a["layers"]} layers, units {tuple(a["units"])}, dropout 0.4. **Width:
{a["stem_filters"]} filters in the stem instead of 64 (factor {a["width_factor"]:g}),
{a["parameters"]:,} parameters** instead of 173 million.

{_training_data(info)} Additions to the paper's recipe: the last batch-normalisation scale of each
unit is initialised to zero; log(1 + count) is an auxiliary target; counts of 5 to 15 are left out
at first; the learning rate has a warm-up and a cosine decay; volumes are mirrored and slightly
shifted.{_padding(a)}

{phases}

## Held-out scores

{_held_out(info)} ({m["severe"]} moderate-to-severe), full-size volumes preprocessed by the node's
own stages and scored with this ONNX file (`python -m training evaluate`).
{info["held_out"].get("note", "")}

{table(("", ""), scores)}

{_saliency(m)}{_limits(info)}""")


def _padding(architecture: dict[str, Any]) -> str:
    if architecture.get("padding_planes", True):
        return ""
    return " Kernel planes that would see only padding are left out of the network."


def _saliency(metrics: dict[str, Any]) -> str:
    """Describe where the activation lies, if that was measured."""
    found = metrics.get("saliency", {})
    if not found.get("predicted_severe"):
        return ""
    return f"""\
Activation: in the {found["predicted_severe"]} subjects predicted moderate-to-severe, a median of
{found["in_basal_ganglia"]:.0%} of the brain's activation lies in the basal ganglia,
{found["in_basal_ganglia_times_chance"]:.1f} times the share expected by chance. The share on EPVS
is {found["on_epvs_times_chance"]:.1f} times that expected by chance.

"""


def _held_out(info: dict[str, Any]) -> str:
    held_out, scans = info["held_out"], info["metrics"]["subjects"]
    if held_out["kind"] == "site":
        return f"{scans} subjects of a site, from another file than the training subjects"
    return (
        f"{scans} scans of {held_out['heads']} synthetic heads of another seed"
        f"{_conditions(held_out)}"
    )


def _conditions(cohort: dict[str, Any]) -> str:
    return f", {cohort['conditions']} conditions" if "conditions" in cohort else ""


def _training_data(info: dict[str, Any]) -> str:
    cohort, held_out = info["training"]["cohort"], info["held_out"]
    simulated = "conditions" in cohort or "conditions" in held_out
    source = " Simulated conditions: `training/synthetic/conditions.py`." if simulated else ""
    return f"""\
## Training

Weights: SHA-256 `{info["weights_sha256"]}`, exported {info["trained_at"]}.

Training data: {_scans(cohort)}. Every eleventh head was used to choose the epoch.
{info["training"]["epochs"]} epochs. Held-out data: {_scans(held_out)}. Preprocessing version
{info["preprocessing"]["version"]}, Haar enhancement
`{info["preprocessing"]["enhancement"]}`.{source}"""


def _scans(cohort: dict[str, Any]) -> str:
    """Describe the scans of a cohort."""
    if cohort["kind"] == "site":
        return (
            f"{cohort['scans']} subjects of a site, labelled by {cohort['labels']} (CSV file with "
            f"SHA-256 `{cohort['csv_sha256']}`; {cohort['skipped_rows']} rows left out)"
        )
    return (
        f"{cohort['scans']} scans of {cohort['heads']} synthetic heads (seed {cohort['seed']}"
        f"{_conditions(cohort)}; heads that failed the registration's quality check: "
        f"{cohort['rejected_heads']})"
    )


def _limits(info: dict[str, Any]) -> str:
    synthetic = info["training"]["cohort"]["kind"] != "site"
    return f"## Limits\n\n{_SYNTHETIC_LIMITS if synthetic else _SITE_LIMITS}"
