"""Severity network: size, padding-only planes, Grad-CAM in closed form."""

import pytest
import torch

from training.severity.network import UNITS, ResidualUnit, SeverityNet, drop_padding


def _small(seed: int = 0, *, published: bool = False) -> SeverityNet:
    torch.manual_seed(seed)
    net = SeverityNet(layers=18, width=4, published=published)
    for parameter in net.parameters():  # so that the scales are not zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net.eval()


def test_full_width_has_173_million_parameters() -> None:
    with torch.device("meta"):
        published, served = SeverityNet(152, 64, published=True), SeverityNet(152, 64)
    assert _parameters(published) == pytest.approx(173e6, rel=0.01)
    assert _parameters(served) == pytest.approx(63e6, rel=0.01)


def _parameters(net: SeverityNet) -> int:
    return sum(p.numel() for n, p in net.named_parameters() if not n.startswith("log_count"))


def test_dropping_padding_only_planes_does_not_change_the_output() -> None:
    published = _small(published=True)
    lean = SeverityNet(18, 4).eval()
    lean.load_state_dict(drop_padding(published.state_dict(), lean))
    volume = torch.rand(2, 1, 16, 96, 64)
    with torch.no_grad():
        for output, expected in zip(lean(volume), published(volume), strict=True):
            assert expected.std() > 0
            assert torch.allclose(output, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("layers", "units"), [(50, 16), (101, 33), (152, 50)])
def test_units_of_each_depth(layers: int, units: int) -> None:
    with torch.device("meta"):
        net = SeverityNet(layers, 8)
    assert sum(UNITS[layers]) == units
    assert sum(isinstance(m, ResidualUnit) for m in net.modules()) == units


def test_saliency_shape_of_a_full_size_volume() -> None:
    with torch.no_grad():
        probability, saliency = SeverityNet(18, 1).eval()(torch.zeros(2, 1, 16, 512, 512))
    assert probability.shape == (2, 1)
    assert saliency.shape == (2, 1, 16, 16)


def test_grad_cam_equals_autograd() -> None:
    net = _small()
    volume = torch.rand(2, 1, 16, 96, 96)
    _, saliency = net(volume)

    maps = net.features(volume).detach().requires_grad_()
    net.score(maps.mean(dim=(2, 3, 4))).sum().backward()
    assert maps.grad is not None
    weights = maps.grad.mean(dim=(2, 3, 4), keepdim=True)  # Grad-CAM's definition
    expected = torch.relu((weights * maps).sum(dim=1))
    assert expected.max() > 0
    assert torch.allclose(saliency, expected, rtol=1e-5, atol=1e-5 * expected.max().item())


def test_untrained_units_are_the_identity() -> None:
    unit = ResidualUnit(4, 4, stride=1)
    torch.nn.init.zeros_(unit.body[-1].weight)  # type: ignore[arg-type]
    x = torch.rand(2, 4, 3, 8, 8)
    assert torch.equal(unit(x), x)
    net = SeverityNet(18, 4)
    assert all(
        m.body[-1].weight.abs().max().item() == 0  # type: ignore[operator]
        for m in net.modules()
        if isinstance(m, ResidualUnit)
    )
