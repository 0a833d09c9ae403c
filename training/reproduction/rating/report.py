"""The report of the rating reproduction, section by section, as Markdown.

Each of the paper's figures stands beside ours.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from training.cohorts.examples import rating_of
from training.reproduction.rating import subjects as paper_subjects
from training.reproduction.rating.enhancement import FAINT, VISIBLE_CNR, EnhancementFigures
from training.reproduction.rating.results import ArmResults, compare
from training.statistics import mean_sd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.cohorts.examples import Example

PAPER: Final = {
    # Rating paper, Tables 3 and 4, and the baseline in section 3: image, subject (majority vote).
    "stationary": ("87.7 ± 1.6", "80.3 ± 6.6"),
    "mse": ("87.6 ± 2.7", "80.1 ± 4.5"),
    "none": ("76.2 ± 1.7", "70.2 ± 7.2"),
    "forest": ("69.7 ± 0.5", "63.0 ± 1.4"),
}
PAPER_TRAINING: Final = {
    "stationary": ("88.1 ± 0.6", "83.6 ± 1.5"),
    "mse": ("87.1 ± 0.9", "82.9 ± 2.9"),
    "none": ("78.3 ± 0.9", "72.9 ± 1.9"),
}


def synthetic_cohort(subjects: Sequence[Example], epochs: int, seeds: int) -> str:
    """Describe the synthetic cohort, and say what its figures are not."""
    errors = [e.facts["registration_error_mm"] for e in subjects]
    moved = np.mean([e.facts["motion_mm"] > 0 for e in subjects])
    command = f"python -m training reproduce rating --epochs {epochs} --seeds {seeds}"
    return f"""\
# The rating paper's evaluation, on a synthetic cohort

**Ours are synthetic heads with a known number of tubes drawn into them; the paper's are scans of
people read by two neuroradiologists. The figures stand side by side to show what the same method
does with each, and say nothing about which is better. Not for clinical use.**

Last output of `{command}`. {_protocol(epochs)}

## The cohort

{len(subjects)} heads, one scan each, 384 × 384 pixels of 0.573 mm, 28 slices of 5 mm (section 2.2),
registered and cut by the node's own code. Each scan was chosen out of {paper_subjects.POOL.scans}
of its head so that the numbers of Table 2 come out. The head moved in {moved:.0%} of them. The
registration is off by {np.median(errors):.1f} mm at the basal ganglia (median; largest
{max(errors):.1f} mm); nothing here knows the true position.

{_rating_table(subjects)}

The paper's clinical groups (dementia, MCI, healthy) have no counterpart in heads that never lived.

![Scans of each protocol, and two crops of every rating](rating-cohort.png)"""


def site_cohort(subjects: Sequence[Example], description: dict[str, Any], epochs: int) -> str:
    """Describe a site's cohort."""
    return f"""\
# The rating paper's evaluation, on a site's own cohort

**Not for clinical use.** {_protocol(epochs)}

## The cohort

{len(subjects)} subjects labelled by {description["labels"]}; CSV file of sha256
`{description["csv_sha256"]}`.

{_rating_table(subjects)}"""


def _protocol(epochs: int) -> str:
    return f"""\
Paper: Applied Sciences 2021, 96 subjects; section and table numbers are the paper's.
Five-fold cross-validation by subject, {epochs} epochs a training (paper: 300), the last epoch's
weights; mean ± standard deviation over the folds, in percent. Adam 0.001, rotation by up to 30° and
flips as in the paper; batches of 32 and a learning rate that decays along a cosine are ours."""


def _rating_table(subjects: Sequence[Example]) -> str:
    ratings = rating_of(np.stack([e.counts for e in subjects]))
    rows: list[tuple[str, Sequence[int]]] = [
        ("images, paper (Table 2)", paper_subjects.IMAGES_OF_RATING),
        ("images, ours", np.bincount(ratings.ravel(), minlength=5).tolist()),
        (
            "subjects (highest of six), ours",
            np.bincount(ratings.max(axis=1), minlength=5).tolist(),
        ),
    ]
    table = "\n".join(f"| {name} | " + " | ".join(str(n) for n in row) + " |" for name, row in rows)
    return f"| rating | 0 | 1 | 2 | 3 | 4 |\n|---|---|---|---|---|---|\n{table}"


def accuracy(results: dict[str, ArmResults]) -> str:
    """Accuracy of each loss, in training and held out (Table 3)."""
    rows = []
    for name in ("stationary", "published", "mse", "extended"):
        if name not in results:
            continue
        arm = results[name]
        train_paper, test_paper = PAPER_TRAINING.get(name, ("–", "–")), PAPER.get(name, ("–", "–"))
        for place, measure in enumerate(("image", "subject-majority")):
            rows.append(
                f"| {arm.arm.title} ({arm.arm.seeds}) | {measure} "
                f"| {mean_sd(arm.train[measure])} | {mean_sd(arm.test[measure])} "
                f"| {train_paper[place]} | {test_paper[place]} |"
            )
        rows.append(
            f"| | subject-highest | {mean_sd(arm.train['subject-highest'])} "
            f"| {mean_sd(arm.test['subject-highest'])} | – | – |"
        )
    table = "\n".join(rows)
    return f"""\
## Accuracy (Table 3)

The paper's subjects are rated by majority vote; the highest of six, which the paper names in
section 2.4.2 and the node reports, is given too. In brackets: repetitions.

| training | | training | **held out** | paper, training | paper, held out |
|---|---|---|---|---|---|
{table}

The recipe of the shipped weights adds to the paper's: the logarithm of the count as a further
target, which needs counts where the paper's readers had grades; copies of every image with
simulated motion and noise; every rating drawn equally often; a running average of the weights.

![Accuracy of every fold](rating-accuracy.png)"""


def ablation(results: dict[str, ArmResults]) -> str:
    """Accuracy with and without Haar, tested (Table 4)."""
    rows = [
        _held_out(results[name], "image", "subject-majority", "subject-highest")
        for name in ("stationary", "block-group", "none")
    ]
    tests = []
    for one, other in (
        ("stationary", "none"),
        ("block-group", "none"),
        ("stationary", "block-group"),
    ):
        found = [compare(results[one], results[other], m) for m in ("image", "subject-majority")]
        tests.append(f"| {one} − {other} | {found[0]} | {found[1]} |")
    newline = "\n"
    return f"""\
## With and without Haar (Table 4)

{results["none"].arm.seeds} repetitions with other folds and other initial weights; in each, all
arms have the same folds.

| | image | subject, majority | subject, highest | paper, image | paper, subject |
|---|---|---|---|---|---|
{newline.join(rows)}

Differences of accuracy on the same folds, 95 % interval, and a t-test whose variance is corrected
for overlapping training sets (Nadeau and Bengio 2003):

| | image | subject, majority |
|---|---|---|
{newline.join(tests)}

{_verdict(results)}"""


def _held_out(results: ArmResults, *measures: str) -> str:
    """One row: held-out accuracies, then the paper's at image and subject level."""
    paper = PAPER.get(results.arm.name, ("–", "–"))
    cells = [results.arm.title, *(mean_sd(results.test[measure]) for measure in measures), *paper]
    return f"| {' | '.join(cells)} |"


def _verdict(results: dict[str, ArmResults]) -> str:
    """Say what the ablation shows, from its figures."""
    found = compare(results["stationary"], results["none"], "image")
    if found.p < 0.05:
        more = "more" if found.mean > 0 else "less"
        return (
            f"The stationary transform brings {abs(found.mean):.1%} {more} image accuracy than no "
            "enhancement, where the paper reports 11 % more."
        )
    return (
        f"**The paper's gain of 11 % is not found here**: a difference of {found.mean:+.1%} cannot "
        "be told from chance on this cohort."
    )


def enhancements(measured: dict[str, EnhancementFigures], epvs: int, faint: int) -> str:
    """Contrast to noise and loss of single EPVS."""
    rows = "\n".join(
        f"| {name} | {f.cnr:.1f} ({f.cnr / measured['none'].cnr:.2f} ×) "
        f"| {f.faint_cnr:.1f} ({f.faint_cnr / measured['none'].faint_cnr:.2f} ×) "
        f"| {f.faint_visible:.1%} | {f.faint_lost:.1%} | {f.milliseconds:.1f} |"
        for name, f in measured.items()
    )
    return f"""\
## What the enhancements do to single EPVS

{epvs} EPVS in the graded images of other synthetic subjects; {faint} of them are faint: they fill
at most {FAINT:.0%} of any pixel. Contrast to noise: mean inside minus mean of the ring around it,
divided by that ring's standard deviation. Lost: less than half of the contrast it had is left.

| | CNR, median | of faint ones | faint, CNR ≥ {VISIBLE_CNR:g} | faint and lost | ms an image |
|---|---|---|---|---|---|
{rows}"""


def baseline(results: dict[str, ArmResults]) -> str:
    """Compare with the random forests (section 3)."""
    rows = [
        _held_out(results[name], "image", "subject-majority")
        for name in ("stationary", "forest", "forest-all")
    ]
    lead = {
        name: [
            compare(results["stationary"], results[name], m) for m in ("image", "subject-majority")
        ]
        for name in ("forest", "forest-all")
    }
    newline = "\n"
    return f"""\
## The baseline: Haar-like features and a random forest (section 3)

On the same folds and the same enhanced images. The paper gives no parameters; features at places of
the crop are how such forests are built, features pooled over all places suit counting and are a
stronger opponent than the paper's.

| | image | subject, majority | paper, image | paper, subject |
|---|---|---|---|---|
{newline.join(rows)}

The network leads the first by {lead["forest"][0]} at image and {lead["forest"][1]} at subject level
(paper: about 0.17), the second by {lead["forest-all"][0]} and {lead["forest-all"][1]}."""


def agreement(served: ArmResults) -> str:
    """Correlation and agreement with the truth (Figure 3)."""

    def over(score: str) -> str:
        values = [scores[score] for scores in served.scores]
        if not np.isfinite(values).all():  # a network that always gives the same answer
            return "–"
        return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"

    def intervals(score: str) -> str:
        value, low, high = np.mean([scores[score] for scores in served.scores], axis=0)
        return f"{value:.3f} ({low:.3f}–{high:.3f})"

    return f"""\
## Correlation and agreement (Figure 3, section 2.3)

Everything held out once in each repetition; mean and range over the repetitions, for the ICC its
95 % interval. ICC(2,1): absolute agreement of one reader, here the model, with the truth. A site
computes the same for its readers with `python -m training agreement READER-A.csv READER-B.csv`.

| | image | subject (highest) | paper, image | paper, subject |
|---|---|---|---|---|
| Spearman | {over("image_spearman")} | {over("subject_spearman")} | 0.934 | 0.917 |
| ICC(2,1) | {intervals("image_icc")} | {intervals("subject_icc")} | – | – |
| readers with each other, ICC | – | – | 0.880 (0.761–0.942), 0.901 (0.800–0.952) | – |
| within one rating | {over("image_within_one")} | {over("subject_within_one")} | – | – |

![Confusion matrices](rating-confusion.png)"""


def errors_near_boundaries(
    served: ArmResults, errors: Sequence[tuple[str, int, float, float]]
) -> str:
    """Errors by true count (Figure 4, section 4)."""
    total: Counter[str] = Counter()
    near, far = [], []
    for scores in served.scores:
        boundary = scores["near_boundary"]
        total.update({key: boundary[key] for key in ("wrong", "wrong_near", "wrong_too_low")})
        near.append(boundary["near_accuracy"])
        far.append(boundary["far_accuracy"])
    low_share = total["wrong_too_low"] / max(total["wrong"], 1)
    finding = "agrees with" if low_share > 0.6 else "does not bear out"
    rows = "\n".join(
        f"| {name} | {images} | {low:.1%} | {high:.1%} |" for name, images, low, high in errors
    )
    return f"""\
## Errors near the boundaries (Figure 4 and section 4)

The paper observes that wrongly rated subjects lie near the critical counts and are mostly rated
too low (15 of 19). Here {total["wrong_near"]} of {total["wrong"]} wrong images have counts within
two of another rating (accuracy {np.mean(near):.3f} there, {np.mean(far):.3f} elsewhere), and
{low_share:.0%} of the wrong ones are rated too low, which {finding} the second half of it.

| true EPVS | images | too low | too high |
|---|---|---|---|
{rows}

![Errors by true count](rating-errors.png)

A training took {served.seconds / 60:.1f} min on one core that others used too (median)."""
