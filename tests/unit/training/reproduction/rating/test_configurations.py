"""Training configurations: each differs from the paper's recipe only as its name says."""

from dataclasses import replace

from training.rating.network import FILTERS
from training.rating.recipe import shipped_plan
from training.reproduction.rating.configurations import configurations


def test_configurations_differ_only_as_named() -> None:
    by_name = {each.name: each for each in configurations(300, 3)}
    paper = by_name["stationary"].plan
    assert (paper.epochs, paper.batch, paper.rate, paper.loss) == (300, 32, 1e-3, "cross-entropy")
    assert not paper.count_weight
    assert not paper.averaging
    assert by_name["none"].plan == replace(paper, enhancement="none")
    assert by_name["mse"].plan == replace(paper, loss="mse")
    assert by_name["extended"].plan == replace(shipped_plan(300), filters=FILTERS)
    for name in ("stationary", "none", "block-group", "forest"):
        assert by_name[name].repetitions == 3


def test_fewer_epochs_add_a_configuration_with_the_papers_number() -> None:
    assert "published" not in {each.name for each in configurations(300, 3)}
    (longer,) = (each for each in configurations(100, 3) if each.name == "published")
    assert longer.plan == configurations(300, 3)[0].plan
