"""A component that ends is started again, at growing intervals, and says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from core.errors import ConfigurationError, Unavailable
from node.embedded import supervision
from node.embedded.supervision import LONGEST_WAIT_S, STEADY_S, Component


@dataclass
class Clock:
    """Stands in for the module ``time``: sleeping takes no time."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class FakeProcess:
    pid: int
    alive: bool = True
    grace_s: float | None = -1.0
    log_path: Path = Path("part.log")

    def running(self) -> bool:
        return self.alive

    def describe_end(self) -> str:
        return "killed by SIGKILL"

    def log_tail(self, lines: int = 12) -> str:
        return "no such disk"

    def terminate(self) -> None: ...

    def stop(self, grace_s: float | None = None) -> None:
        self.alive, self.grace_s = False, grace_s


@dataclass
class Part:
    """A component whose processes are made up."""

    clock: Clock
    ready: bool = True
    launched: list[FakeProcess] = field(default_factory=list)
    problem: Exception | None = None

    def __post_init__(self) -> None:
        self.component = Component("part", self._launch, lambda: self.ready, start_timeout_s=50)

    def _launch(self) -> FakeProcess:
        if self.problem is not None:
            raise self.problem
        self.launched.append(FakeProcess(len(self.launched) + 1))
        return self.launched[-1]

    def start(self) -> None:
        self.component.launch()
        self.component.wait_until_ready()

    def kill(self) -> None:
        self.launched[-1].alive = False

    def seconds_until_launched(self) -> float:
        """Supervise until there is one process more; return how long that took."""
        began, n_launched = self.clock.now, len(self.launched)
        while len(self.launched) == n_launched:
            self.component.supervise()
            self.clock.sleep(0.5)
        return self.clock.now - began


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Part:
    clock = Clock()
    monkeypatch.setattr(supervision, "time", clock)
    return Part(clock)


def test_a_component_that_runs_is_left_alone(part: Part) -> None:
    part.start()
    assert part.component.supervise() == ""
    assert part.component.state.state == "running"
    assert part.component.state.restarts == 0
    assert len(part.launched) == 1


def test_a_component_that_was_killed_runs_again(part: Part) -> None:
    part.start()
    part.kill()
    assert part.component.supervise() == "killed by SIGKILL; starts again now"
    assert part.component.state.state == "waiting"
    assert part.component.supervise() == ""
    assert part.component.state.state == "starting"
    assert part.component.supervise() == "runs again"
    state = part.component.state
    assert (state.state, state.restarts, state.pid) == ("running", 1, 2)
    assert "restarts: 1, killed by SIGKILL at " in str(state)


def test_waits_double_up_to_a_limit(part: Part) -> None:
    part.start()
    waits = []
    for _ in range(9):
        part.kill()
        waits.append(part.seconds_until_launched())
    assert waits[0] <= 1.0
    for shorter, longer in pairwise(waits[1:6]):
        assert longer == pytest.approx(2 * shorter, abs=1.5)
    assert waits[-1] == pytest.approx(LONGEST_WAIT_S, abs=1.5)


def test_a_time_of_health_resets_the_waits(part: Part) -> None:
    part.start()
    for _ in range(6):
        part.kill()
        part.seconds_until_launched()
    part.component.supervise()
    part.clock.sleep(STEADY_S)
    part.kill()
    assert part.seconds_until_launched() <= 1.0


def test_a_component_that_cannot_start_again_is_tried_for_ever(part: Part) -> None:
    part.start()
    part.kill()
    part.problem = ConfigurationError("/dev/shm is full.", "Enlarge it.")
    for _ in range(1000):
        part.component.supervise()
        part.clock.sleep(0.5)
    state = part.component.state
    assert state.state in {"waiting", "starting"}
    assert "/dev/shm is full." in state.last_exit
    assert state.next_try
    assert 500 / LONGEST_WAIT_S <= state.restarts < 30
    part.problem = None
    part.seconds_until_launched()
    assert part.component.supervise() == "runs again"


def test_an_end_while_starting_again_is_told_with_the_last_line_of_the_log(part: Part) -> None:
    part.start()
    part.ready = False
    part.kill()
    part.seconds_until_launched()
    part.kill()
    assert part.component.supervise() == (
        "killed by SIGKILL while starting: no such disk; starts again in 1 s"
    )


def test_a_process_that_is_never_ready_is_stopped_and_started_again(part: Part) -> None:
    part.start()
    part.ready = False
    part.kill()
    part.seconds_until_launched()
    hung = part.launched[-1]
    part.clock.sleep(51)
    assert "was not ready within 50 s" in part.component.supervise()
    assert not hung.alive


@pytest.mark.parametrize("alive", [True, False])
def test_a_first_start_that_fails_is_an_error_with_the_end_of_the_log(
    part: Part, alive: bool
) -> None:
    part.ready = False
    part.component.launch()
    part.launched[-1].alive = alive
    with pytest.raises(Unavailable, match=r"(?s)part .*while starting|not ready.*no such disk"):
        part.component.wait_until_ready()


def test_a_first_start_for_which_something_is_missing_is_an_error(part: Part) -> None:
    part.problem = ConfigurationError("no such program.")
    with pytest.raises(ConfigurationError, match="no such program"):
        part.component.launch()


def test_only_what_does_its_work_gets_the_time_to_finish_it() -> None:
    part = Part(Clock(), ready=False)
    part.component.launch()
    part.component.stop()
    part.ready = True
    part.component.launch()
    part.component.wait_until_ready()
    part.component.stop()
    starting, running = part.launched
    assert starting.grace_s is not None
    assert starting.grace_s <= 10
    assert running.grace_s is None
