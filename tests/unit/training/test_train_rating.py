"""Rating training: it learns, it resumes, its augmentation keeps what it should."""

from pathlib import Path

import numpy as np
import torch

from training.datasets import Example, store_example
from training.networks.rating import RatingNet
from training.train_rating import augment, train_rating


def _dots(count: int, rng: np.random.Generator) -> np.ndarray:
    crop = np.full((112, 86), 0.3) + rng.normal(0, 0.01, (112, 86))
    for _ in range(count):
        row, column = rng.integers(8, 104), rng.integers(8, 78)
        crop[row - 1 : row + 2, column - 1 : column + 2] = 0.9
    return np.rint(crop * 65535).astype(np.uint16)


def _cohort(folder: Path, subjects: int) -> None:
    rng = np.random.default_rng(0)
    counts = np.array([0, 5, 15, 30, 60, 0])
    folder.mkdir()
    (folder / "cohort.json").write_text('{"kind": "test", "seed": 0, "enhancement": "none"}')
    for number in range(subjects):
        crops = np.stack([_dots(int(c), rng) for c in counts])
        volume = np.zeros((16, 2, 2), dtype=np.uint8)
        store_example(folder / f"{number:05d}.npz", Example(crops, counts, volume, 60))


def test_the_network_can_learn_a_handful_of_crops() -> None:
    rng = np.random.default_rng(1)
    counts = np.array([0, 5, 15, 30, 60] * 2)
    crops = torch.from_numpy(np.stack([_dots(int(c), rng) for c in counts]) / 65535).float()
    ratings = torch.tensor([0, 1, 2, 3, 4] * 2)
    torch.manual_seed(0)
    net = RatingNet()
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(net.logits(crops[:, None]), ratings)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (net.logits(crops[:, None]).argmax(dim=1) == ratings).all()


def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    _cohort(tmp_path / "cohort", 12)
    train_rating(tmp_path / "cohort", tmp_path / "run", epochs=1)
    train_rating(tmp_path / "cohort", tmp_path / "run", epochs=2)
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ['{"epoch": 0', '{"epoch": 1']
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["epoch"] == 2
    assert state["optimiser"]["state"][0]["step"] == 2 * -(-11 * 6 // 32)


def test_augmentation_rotates_about_the_centre_without_scaling() -> None:
    crops = torch.zeros(64, 1, 112, 86)
    crops[:, 0, 55:57, 42:44] = 1.0  # centre: stays
    crops[:, 0, 16:18, 42:44] = 1.0  # 39 pixels away: moves on a circle of that radius
    turned = augment(crops, torch.Generator().manual_seed(0))
    assert (turned[:, 0, 55:57, 42:44].mean(dim=(1, 2)) > 0.8).all()
    rows, columns = torch.meshgrid(torch.arange(112.0), torch.arange(86.0), indexing="ij")
    distance = torch.hypot(rows - 55.5, columns - 42.5)
    off_centre = turned[:, 0] * (distance > 5)
    radius = (off_centre * distance).sum(dim=(1, 2)) / off_centre.sum(dim=(1, 2))
    assert torch.allclose(radius, torch.full((64,), 39.0), atol=1.0)
    assert off_centre.sum(dim=(1, 2)).std() < 0.5
