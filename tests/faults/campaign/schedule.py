"""The schedule of a campaign: which fault begins when, and for how long; the same for a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MEAN_GAP_S: Final = 5.0
"""Mean time between the beginnings of two faults: over 600 in an hour."""
LONGEST_S: Final = 6.0


class Kind(StrEnum):
    """What a fault does."""

    NODE_KILLED = "node killed with all its processes, and started"
    RECEIVER_KILLED = "receiver killed"
    WORKER_KILLED = "worker killed"
    WORKER_CHILD_KILLED = "worker's child killed"
    WORKER_RESTARTED = "worker stopped by SIGTERM and started"
    HOUSEKEEPER_KILLED = "housekeeper killed"
    REDIS_KILLED = "Redis killed, started with its data"
    REDIS_LOST = "Redis killed, started empty"
    REDIS_FLUSHED = "Redis emptied: FLUSHALL, or every key deleted"
    REDIS_PAUSED = "Redis paused"
    DATABASE_STOPPED = "PostgreSQL stopped without a checkpoint"
    DATABASE_BACKEND_KILLED = "PostgreSQL: a server process killed"
    DATABASE_PAUSED = "PostgreSQL paused"
    DATABASE_FULL = "PostgreSQL's disk full"
    TRITON_KILLED = "Triton killed"
    TRITON_CHILD_KILLED = "Triton's model process killed"
    TRITON_PAUSED = "Triton paused"
    DISK_FULL = "data folder's disk full"
    HOST_CUT = "host cut off"


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of the schedule.

    Attributes
    ----------
    at_s : float
        Seconds since the beginning of the campaign.
    kind : Kind
    lasts_s : float
        How long until it is mended.
    number : int
        Chooses among several targets.
    """

    at_s: float
    kind: Kind
    lasts_s: float
    number: int


def plan(
    seed: int, seconds: float, kinds: Collection[Kind], mean_gap_s: float = MEAN_GAP_S
) -> Iterator[Planned]:
    """Yield the faults of a campaign: each kind in turn, in random order."""
    chance = random.Random(seed)
    at_s = chance.expovariate(1 / mean_gap_s)
    waiting: list[Kind] = []
    while at_s < seconds:
        if not waiting:
            waiting = sorted(kinds)
            chance.shuffle(waiting)
        yield Planned(
            at_s, waiting.pop(), chance.uniform(0.5, LONGEST_S), chance.randrange(1_000_000)
        )
        at_s += chance.expovariate(1 / mean_gap_s)
