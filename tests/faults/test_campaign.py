"""A short fault campaign, and that its checks find what they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.campaign.embedded import EmbeddedSite
from tests.faults.campaign.run import MOVES_WITHIN_S, Campaign
from tests.faults.campaign.schedule import Kind, plan

if TYPE_CHECKING:
    from pathlib import Path


SEED = 5
FAULTS_FOR_S = 7.0


def test_nothing_is_lost_doubled_or_stuck_while_everything_fails(tmp_path: Path) -> None:
    with EmbeddedSite(tmp_path / "site", SEED) as site:
        site.wait_until_ready()
        campaign = Campaign(site, SEED, FAULTS_FOR_S, pause_s=0.5, mean_gap_s=0.8)
        outcome = campaign.run()
    assert outcome.found.wrong == []
    assert outcome.moved_after_s < MOVES_WITHIN_S
    assert sum(outcome.faults.values()) > 3
    assert outcome.found.counts["instances acknowledged"] > 5
    assert outcome.found.counts["deliveries"] > 3


def test_a_seed_gives_the_same_faults_and_every_kind() -> None:
    first, second = (list(plan(7, 600, list(Kind))) for _ in range(2))
    assert first == second
    assert {fault.kind for fault in first} == set(Kind)
    assert first != list(plan(8, 600, list(Kind)))
    assert all(0 < fault.at_s < 600 for fault in first)
