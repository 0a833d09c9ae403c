"""Model cards: what the weights are, what they were trained on, what they score, their limits."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

_SYNTHETIC_LIMITS = """\
- **Synthetic; not for clinical use.** No scan of a person was used in training or in scoring. What
  the model answers on real scans has not been validated by anybody.
- The synthetic heads come from the template that they are registered to, with simple skulls and
  one kind of lacune and white-matter lesion; scores on them are optimistic.
- Where there are several scans of one head, they share the registration of the first.
- Labels are the true number of tubes drawn, which no reader would reach; readers' agreement, and
  with it the ceiling on real scans, is lower.
- Axial T2 scans with 0.43–0.57 mm pixels and 2.5–5 mm slices were simulated, nothing else.

## Licence

Apache-2.0, as the project. The anatomy derives from the MNI ICBM152 2009a maps; their notice is in
`training/assets/NOTICE.md`.
"""
_SITE_LIMITS = """\
- **Not validated, not for clinical use.** Labels are the readings of one site; scanners, protocols
  and readers of other places were not seen.
- Where readers gave grades, no count lies behind them.
- If the held-out cohort is synthetic, its figures say nothing about scans of people.
"""


def rating_card(info: dict[str, Any]) -> str:
    """``MODEL.md`` of the rating model.

    Parameters
    ----------
    info : dict
        Content of ``model.json``.
    """
    m = info["metrics"]
    chance = m["image_most_frequent_rating"]
    rows = "\n".join(
        f"| {grade} | " + " | ".join(str(n) for n in row) + " |"
        for grade, row in enumerate(m["image_confusion"])
    )
    return f"""\
# {info["display_name"]} (version {info["version"]})

{info["intended_use"]}

Rates the EPVS of one basal-ganglia image from 0 to 4 (0; 1–10; 11–20; 21–40; more than 40 EPVS).
After the rating paper (Applied Sciences, 2021): five convolutions with ReLU, average pooling, two
fully connected layers, softmax. Filter counts
{", ".join(str(f) for f in info["architecture"]["filters"])} and batch normalisation are ours;
{info["architecture"]["parameters"]:,} parameters.

{_data(info)} {_rating_recipe(info["training"])}

## Held-out figures

{_held_out(info)}, {m["images"]} images, through the node's own
preprocessing and this ONNX file (`python -m training evaluate`).

| | |
|---|---|
| accuracy, image | {m["image_accuracy"]:.3f} |
| accuracy if the most frequent rating were always given | {chance:.3f} |
| within one rating, image | {m["image_within_one"]:.3f} |
| Spearman, image | {m["image_spearman"]:.3f} |
| ICC(2,1) with the truth, image (95 % CI) | {_interval(m["image_icc"])} |
| accuracy, subject (highest of six) | {m["subject_accuracy"]:.3f} |
| within one rating, subject | {m["subject_within_one"]:.3f} |
| Spearman, subject | {m["subject_spearman"]:.3f} |
| ICC(2,1) with the truth, subject (95 % CI) | {_interval(m["subject_icc"])} |
| accuracy, subject (majority of six) | {m["subject_majority_accuracy"]:.3f} |

Images by true rating (rows) and answer (columns):

| | 0 | 1 | 2 | 3 | 4 |
|---|---|---|---|---|---|
{rows}

## How sure it is

Logits are divided by a temperature of {info["training"]["temperature"]}, found on the validation
subjects. The probability of an image's rating is off by {_ece(m, "image"):.3f} on average (expected
calibration error over ten bins), that of the subject's rating (that the highest of six is this
one, their errors taken as independent) by {_ece(m, "subject"):.3f}.

| answers | confidence, image | right, image | answers | confidence, subject | right, subject |
|---|---|---|---|---|---|
{_reliability(m)}

## Where it fails

{_failures(m)}
{_limits(info)}"""


def _rating_recipe(training: dict[str, Any]) -> str:
    plan = training["plan"]
    parts = []
    if plan["count_weight"]:
        parts.append("the logarithm of the count is an auxiliary target in training")
    if plan["averaging"]:
        parts.append(f"the weights are a running average (decay {plan['averaging']:g} a step)")
    if plan["balanced"]:
        parts.append("every rating is drawn equally often")
    if plan["worse_copies"]:
        parts.append(
            f"every image has {plan['worse_copies']} copies with simulated motion and noise"
        )
    beyond = f" Beyond the paper's recipe: {', '.join(parts)}." if parts else ""
    return (
        f"Loss: {plan['loss']}; Adam, {plan['rate']:g}, decaying along a cosine; batches of "
        f"{plan['batch']}; rotation by up to 30° and flips.{beyond}"
    )


def _interval(values: list[float]) -> str:
    return f"{values[0]:.3f} ({values[1]:.3f}–{values[2]:.3f})"


def _ece(metrics: dict[str, Any], level: str) -> float:
    return float(metrics[f"{level}_calibration"]["expected_calibration_error"])


def _reliability(metrics: dict[str, Any]) -> str:
    """Rows of both reliability curves, the surest answers first."""
    curves = [
        reversed(metrics[f"{level}_calibration"]["confidence_accuracy_answers"])
        for level in ("image", "subject")
    ]
    rows = []
    for pair in zip_longest(*curves):
        cells = [f"{row[2]} | {row[0]:.2f} | {row[1]:.2f}" if row else "| | " for row in pair]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _failures(metrics: dict[str, Any]) -> str:
    """Say near which counts and under which circumstances images are rated wrongly."""
    near = metrics["near_boundary"]
    low = near["wrong_too_low"] / max(near["wrong"], 1)
    accuracies = [near["near_accuracy"], near["far_accuracy"]]
    there, elsewhere = ("unknown" if each is None else f"{each:.3f}" for each in accuracies)
    text = (
        f"- Near the boundaries: {near['wrong_near']} of {near['wrong']} wrong images have counts "
        f"within two of another rating; accuracy is {there} there and "
        f"{elsewhere} elsewhere. {low:.0%} of the wrong images are rated too low.\n"
    )
    groups = metrics.get("accuracy_by_circumstance")
    if not groups:
        return text
    rows = "\n".join(
        f"| {name} | {group['scans']} | {group['image_accuracy']:.3f} |"
        for name, group in groups.items()
    )
    error = metrics["registration_error_mm"]
    return (
        f"{text}- By circumstance (the registration is off by {error['median']:.1f} mm in the "
        f"median, {error['95th percentile']:.1f} mm in the worst twentieth):\n\n"
        f"| | scans | image accuracy |\n|---|---|---|\n{rows}\n"
    )


def severity_card(info: dict[str, Any]) -> str:
    """``MODEL.md`` of the severity model; `info` is the content of ``model.json``."""
    m, a = info["metrics"], info["architecture"]
    (tn, fp), (fn, tp) = m["confusion"]
    low, high = m["accuracy_95ci"]
    phases = "\n".join(
        f"{n}. {p['epochs']} epochs of {p['scans']} scans, central {p['window']} × {p['window']} "
        f"pixels, batch {p['batch']}, learning rate up to {p['rate']:g}."
        for n, p in enumerate(info["training"]["phases"], 1)
    )
    return f"""\
# {info["display_name"]} (version {info["version"]})

{info["intended_use"]}

P(at least ten EPVS in the slice and hemisphere with most of them) from 16 slices of 512 × 512, and
its Grad-CAM (closed form, on the last feature map, 1 × 16 × 16). After the severity paper
(Scientific Reports, 2022): 3-D residual network of {a["layers"]} layers, units
{tuple(a["units"])}, dropout 0.4. **Width: {a["stem_filters"]} filters in the stem instead of 64
(factor {a["width_factor"]:g}), {a["parameters"]:,} parameters** instead of 173 million.

{_data(info)} Beyond the paper's recipe: the last batch-normalisation scale of each unit starts at
zero, the logarithm of the count is an auxiliary target in training, counts of 5 to 15 are left out
at first, the learning rate warms up and decays, small shifts and mirroring. Planes of kernels that
would see nothing but padding are left out.

{phases}

## Held-out figures

{_held_out(info)} ({m["severe"]} moderate-to-severe),
full-size volumes through the node's own preprocessing and this ONNX file
(`python -m training evaluate`).

| | |
|---|---|
| AUC | {m["auc"]} |
| accuracy (95 % CI) | {m["accuracy"]:.3f} ({low:.3f}–{high:.3f}) |
| no-information rate | {m["no_information_rate"]:.3f} |
| sensitivity, specificity, F1 | {m["sensitivity"]:.3f}, {m["specificity"]:.3f}, {m["f1"]:.3f} |
| true and false negatives, true and false positives | {tn}, {fn}, {tp}, {fp} |
| counts of 5 to 15 only ({m["borderline_subjects"]} subjects): AUC | {m["borderline_auc"]} |
| the same: accuracy | {m["borderline_accuracy"]:.3f} |

{_saliency(m)}{_limits(info)}"""


def _saliency(metrics: dict[str, Any]) -> str:
    """Say where the activation lies, where that is known."""
    found = metrics.get("saliency", {})
    if not found.get("called_severe"):
        return ""
    return f"""\
Where it looks: of the {found["called_severe"]} subjects that it calls moderate-to-severe,
{found["in_basal_ganglia"]:.0%} of the brain's activation lies in the basal ganglia (median),
{found["in_basal_ganglia_times_chance"]:.1f} times what chance gives, and
{found["on_epvs_times_chance"]:.1f} times chance on the EPVS.

"""


def _held_out(info: dict[str, Any]) -> str:
    heads, scans = info["held_out"]["heads"], info["metrics"]["subjects"]
    if info["held_out"]["kind"] == "site":
        return f"{scans} subjects of a site's own, of another file than trained on"
    conditions = info["held_out"].get("conditions", "standard")
    return f"{scans} scans of {heads} synthetic heads of another seed, {conditions} conditions"


def _data(info: dict[str, Any]) -> str:
    cohort, held_out = info["training"]["cohort"], info["held_out"]
    return f"""\
## Training

Weights sha256 `{info["weights_sha256"]}`, exported {info["trained_at"]}.
{_scans(cohort)},
every eleventh head for choosing the epoch; {info["training"]["epochs"]} epochs.
Held out: {_scans(held_out)}.
Preprocessing version {info["preprocessing"]["version"]}, Haar enhancement
`{info["preprocessing"]["enhancement"]}`. Conditions: `training/synthetic/conditions.py`."""


def _scans(cohort: dict[str, Any]) -> str:
    """Name what a cohort consists of."""
    if cohort["kind"] == "site":
        return (
            f"{cohort['scans']} subjects of a site's own, labelled by {cohort['labels']}\n"
            f"(CSV sha256 `{cohort['csv_sha256']}`; {cohort['skipped_rows']} rows left out)"
        )
    return (
        f"{cohort['scans']} scans of {cohort['heads']} synthetic heads (seed {cohort['seed']}, "
        f"{cohort.get('conditions', 'standard')} conditions;\n"
        f"{cohort['rejected_heads']} more refused by the registration's quality check)"
    )


def _limits(info: dict[str, Any]) -> str:
    synthetic = info["training"]["cohort"]["kind"] != "site"
    return f"## Limits\n\n{_SYNTHETIC_LIMITS if synthetic else _SITE_LIMITS}"
