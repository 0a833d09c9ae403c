"""The report of the severity reproduction, section by section, as Markdown.

Each of the paper's figures stands beside ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from training.cohorts.examples import SEVERE_COUNT
from training.reproduction.severity.robustness import RADIUS
from training.severity.network import FULL_WIDTH
from training.severity.saliency_scores import tells_right_from_wrong
from training.severity.scores import score_severities
from training.statistics import ac2, mean_sd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from training.cohorts.examples import Example
    from training.reproduction.severity.jobs import Answers, Effort
    from training.severity.saliency_scores import SaliencyFigures

PAPER: Final = {
    # Severity paper, Results, Model performance.
    "accuracy": "0.897 (0.758–0.971)",
    "auc": "0.879",
    "sensitivity": "0.80",
    "specificity": "0.96",
    "ppv": "0.923",
    "npv": "0.885",
    "f1": "0.86",
    "no_information_rate": "0.617",
    "no_information_p": "< 0.001",
}
_TITLES: Final = {
    "accuracy": "accuracy (exact 95 % interval)",
    "auc": "AUC (bootstrap 95 % interval)",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "f1": "F1",
    "no_information_rate": "no-information rate",
    "no_information_p": "p against it, binomial test",
}


def cohort(subjects: Sequence[Example], description: dict[str, Any], effort: Effort) -> str:
    """Describe the cohort and what the figures are not."""
    severe = sum(e.severity_count >= SEVERE_COUNT for e in subjects)
    synthetic = description["kind"] == "synthetic"
    title = "a synthetic cohort" if synthetic else "a site's own cohort"
    origin = (
        """\
**Ours are synthetic heads with a known number of tubes drawn into them; the paper's are scans of
stroke patients read by five neuroradiologists. The figures stand side by side to show what the same
method does with each, and say nothing about which is better. Not for clinical use.**"""
        if synthetic
        else f"**Not for clinical use.** CSV file of sha256 `{description['csv_sha256']}`."
    )
    command = (
        f"python -m training reproduce severity --width {effort.width} --epochs {effort.epochs} "
        f"--whole-epochs {effort.whole_epochs} --window {effort.window}"
    )
    registered = ""
    if synthetic:
        errors = [e.facts["registration_error_mm"] for e in subjects]
        registered = f"""
512 × 512 pixels of 0.45 mm, 24 to 36 slices of 4 mm, one scan a head, registered and windowed by
the node's own code. The registration is off by {np.median(errors):.1f} mm at the basal ganglia
(median; largest {max(errors):.1f} mm); nothing here knows the true position."""
    return f"""\
# The severity paper's evaluation, on {title}

{origin}

Last output of `{command}`. Paper: Scientific Reports 2022, 262 subjects. Networks have the paper's
depth but {effort.width} filters in the stem where the paper has {FULL_WIDTH}: that is what a
machine without a GPU can train.

## The cohort

{len(subjects)} subjects, {len(subjects) - severe} none-to-mild and {severe} moderate-to-severe
(paper: 262, 143 and 119).{registered}"""


def design(compared: Mapping[str, Sequence[Answers]], chosen: str) -> str:
    """Depth and dropout by cross-validation (Supplementary Table 2)."""
    rows = "\n".join(
        f"| {title}{' **(chosen)**' if title == chosen else ''} "
        f"| {mean_sd([fold.auc for fold in folds])} "
        f"| {mean_sd([fold.accuracy for fold in folds])} "
        f"| {mean_sd([fold.training_auc for fold in folds])} "
        f"| {np.median([fold.seconds for fold in folds]) / 60:.1f} |"
        for title, folds in compared.items()
    )
    return f"""\
## Depth and dropout by cross-validation

Stratified, five folds, on the subjects outside the test; the last epoch's weights. Mean ± standard
deviation over the folds, in percent. The paper's choice was 152 layers with dropout 0.4; its
figures (Supplementary Table 2) are not in the paper's text.

| | AUC, held out | accuracy, held out | AUC, training | minutes a fold, one core |
|---|---|---|---|---|
{rows}

![AUC of every fold](severity-designs.png)"""


def test(answers: Answers, scores: dict[str, Any]) -> str:
    """Figures of the final test (Model performance)."""
    rows = "\n".join(
        f"| {_TITLES[name]} | {_value(scores, name)} | {PAPER[name]} |" for name in PAPER
    )
    (tn, fp), (fn, tp) = scores["confusion"]
    return f"""\
## The test (Model performance)

The chosen design, trained on 167 subjects, the epoch chosen by the AUC of 56, scored once on
{len(answers.count)}: first on the central part of the volumes, then on whole volumes. AUC in
training {answers.training_auc:.3f}, in validation {answers.validation_auc:.3f}
(paper: 0.834, 0.847).

| | ours, synthetic | paper |
|---|---|---|
{rows}

{tp} true and {fp} false positives, {tn} true and {fn} false negatives (paper: 1 false positive, 3
false negatives). Of counts from 5 to 15 ({scores["borderline_subjects"]} subjects)
{_or_dash(scores["borderline_accuracy"])} are right.

![ROC curve and confusion of the test](severity-test.png)"""


def to_the_letter(answers: Answers) -> str:
    """Report what the paper's recipe gives as it is written."""
    scores = score_severities(answers.probability, answers.count)
    return f"""\
## The paper's recipe to the letter

Whole volumes from the start, batches of 20, cross-entropy alone, learning rate a tenth after 10
epochs without progress, no augmentation, the last scale of every unit starting at one; as many
epochs as our second phase, on the same split: AUC {answers.training_auc:.3f} in training,
{answers.validation_auc:.3f} in validation, {scores["auc"]:.3f} in the test (accuracy
{scores["accuracy"]:.3f}; the larger class alone gives {scores["no_information_rate"]:.3f}). The
paper does not say how many epochs it took; this is what few show, no verdict on many.

What is added in the other figures: the logarithm of the count as a further target, clear cases
before borderline ones, mirrored and shifted copies, units that start as pass-through, warm-up and
cosine decay, a first phase on the central part."""


def robustness(scores: NDArray[np.float64]) -> str:
    """Robustness of the answers (CLEVER)."""
    return f"""\
## Robustness (CLEVER, ℓ₂)

Mean {scores.mean():.2f}, median {np.median(scores):.2f}, least {scores.min():.2f} over the test
subjects, {np.mean(scores >= RADIUS):.0%} at the largest distance looked at, {RADIUS:g} (paper: mean
5.76). Computed with the adversarial robustness toolbox from the gradients at six random points a
subject, which is few; the paper gives neither number nor radius, and scores depend on the scale of
the input (here 0 to 1), so that the two figures do not compare."""


def agreement(answers: Answers) -> str:
    """Agreement with the truth, as a site would compute it for readers."""
    both = np.stack([answers.called_severe, answers.severe], axis=1).astype(int)
    return f"""\
## Agreement (Gwet's AC2)

Model with truth, two classes: {ac2(both, 2)} (for two classes AC2 is AC1). The paper's readers
agreed with each other on the five-point scale by 0.64. A site computes the same for its readers
with `python -m training agreement READER-A.csv READER-B.csv`."""


def saliency(figures: Sequence[SaliencyFigures], answers: Answers) -> str:
    """Where the activation lies (Figs. 2 and 3), held against the truth."""
    severe = answers.severe
    right = severe == answers.called_severe
    groups = answers.outcomes | {"all": np.ones(len(right), dtype=bool)}
    rows = "\n".join(_saliency_row(name, figures, of) for name, of in groups.items() if of.any())
    claims = "\n".join(
        f"| {title} | {_claim(values, right)} | {_claim(values, severe)} |"
        for title, values in (
            ("skewness", [f.skewness for f in figures]),
            ("share above 7", [f.share_above_7 for f in figures]),
            ("mean", [f.mean for f in figures]),
            ("distance of the probability from 0.5", list(np.abs(answers.probability - 0.5))),
        )
    )
    return f"""\
## Where the activation lies (Figs. 2 and 3)

The paper judged this by eye; here it is known where the nuclei and the EPVS lie. Share of the
brain's activation in the basal ganglia, and in blocks of 3.6 × 3.6 × 4.5 mm that hold an EPVS, with
the multiple of what chance would give (medians; chance is their share of the brain). A cell of the
feature map is 14.4 mm wide and spans all slices, so that no map can be sharp: one that lit up
exactly the cells of the nuclei would reach about 7 × chance.

| | subjects | in the basal ganglia | × chance | on EPVS | × chance | share above 7 | skewness |
|---|---|---|---|---|---|---|---|
{rows}

Does the distribution of the activation tell right answers from wrong ones, as the paper suggests?
Area under the curve (0.5: not at all) and p of the Mann–Whitney test; beside it how well the same
figure tells severe from none-to-mild.

| | right from wrong | severe from none-to-mild |
|---|---|---|
{claims}

![Input, activation and EPVS of a case of each kind](severity-saliency.png)"""


def _saliency_row(name: str, figures: Sequence[SaliencyFigures], chosen: NDArray[np.bool_]) -> str:
    of = [f for f, is_chosen in zip(figures, chosen, strict=True) if is_chosen]
    nuclei = [f.in_basal_ganglia / f.basal_ganglia for f in of if f.basal_ganglia]
    epvs = [f.on_epvs / f.epvs for f in of if f.epvs]
    return (
        f"| {name} | {len(of)} | {np.median([f.in_basal_ganglia for f in of]):.1%} "
        f"| {np.median(nuclei):.1f} | {np.median([f.on_epvs for f in of]):.1%} "
        f"| {f'{np.median(epvs):.1f}' if epvs else '–'} "
        f"| {np.median([f.share_above_7 for f in of]):.1%} "
        f"| {np.median([f.skewness for f in of]):.2f} |"
    )


def _claim(values: Sequence[float], truth: NDArray[np.bool_]) -> str:
    found = tells_right_from_wrong(values, truth)
    return "–" if found is None else f"{found[0]:.2f} (p = {found[1]:.3f})"


def _value(scores: dict[str, Any], name: str) -> str:
    value, interval = scores[name], scores.get(f"{name}_95ci")
    if name == "no_information_p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    return f"{value:.3f} ({interval[0]:.3f}–{interval[1]:.3f})" if interval else f"{value:.3f}"


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
