"""Fuzzes the receiver: ``python -m tests.fuzz.receiver --minutes 30``.

Runs the state machine of `tests.fuzz.conversation` against a receiver until the time is over. Keeps
the shortest transcript for each sequence of reactions in ``tests/fuzz/corpus/``, which the test
suite replays, and writes ``docs/results/fuzz.md``. Ends with an error at the first example that
violates an invariant, after shrinking it.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.conversation import Conversation, Transcript
from tests.support.paths import ROOT
from tests.support.servers.receiver import run_receiver

if TYPE_CHECKING:
    from collections.abc import Sequence

CORPUS: Final = Path(__file__).parent / "corpus"
REPORT: Final = ROOT / "docs" / "results" / "fuzz.md"
_ROUND: Final = 50
"""Examples from one seed."""


def run_examples(n_examples: int, first_seed: int, steps: int = 20) -> None:
    """Run `n_examples` examples against `Conversation.receiver`.

    Raises
    ------
    AssertionError
        An invariant was violated; the message shows the shortest example that does so.
    """
    machine = seed(first_seed)(Conversation)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=n_examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as folder,
        run_receiver(
            Path(folder) / "data",
            network_timeout_s="10",
            log_level="WARNING",
        ) as receiver,
    ):
        Conversation.receiver = receiver
        Conversation.corpus.update(read_corpus().values())
        process = psutil.Process(receiver.process.pid)
        began, rounds, memory = time.monotonic(), 0, []
        while time.monotonic() - began < options.minutes * 60:
            run_examples(_ROUND, options.seed + rounds)
            rounds += 1
            memory.append(process.memory_info().rss / 1e6)
            print(f"{rounds * _ROUND} examples, {memory[-1]:.0f} MB", flush=True)
        minutes = (time.monotonic() - began) / 60
        faults = receiver.log.read_text().count("association-failed")
    n_files = save_corpus()
    REPORT.write_text(_report(options, minutes, rounds, memory, faults, n_files))


def save_corpus() -> int:
    """Write the transcripts; return how many there are."""
    CORPUS.mkdir(exist_ok=True)
    for old in CORPUS.glob("*.txt"):
        old.unlink()
    for reactions, sent in Conversation.corpus.items():
        lines = [f"# {' | '.join(reactions)}", *(f"{n} {data.hex()}" for data, n in sent)]
        text = "\n".join(lines) + "\n"
        name = hashlib.sha256(text.splitlines()[0].encode()).hexdigest()[:12]
        (CORPUS / f"{name}.txt").write_text(text)
    return len(Conversation.corpus)


def read_corpus() -> dict[str, tuple[tuple[str, ...], Transcript]]:
    """Return the reactions, and what was sent to provoke them, by the name of the transcript."""
    transcripts = {}
    for path in sorted(CORPUS.glob("*.txt")):
        head, *lines = path.read_text().splitlines()
        named = head.removeprefix("# ")  # empty if the connection was closed without a PDU
        reactions = tuple(named.split(" | ")) if named else ()
        parts = (line.partition(" ") for line in lines)
        transcripts[path.stem] = (
            reactions,
            [(bytes.fromhex(data), int(n)) for n, _, data in parts],
        )
    return transcripts


def _report(
    options: argparse.Namespace,
    minutes: float,
    rounds: int,
    memory: list[float],
    faults: int,
    n_files: int,
) -> str:
    tally = Conversation.tally
    rows = "\n".join(
        f"| {name} | {count} |" for name, count in sorted(tally.items()) if name != "connections"
    )
    return f"""# Fuzzing the receiver

Last output of `python -m tests.fuzz.receiver --minutes {options.minutes:g} --seed {options.seed}`.

Hypothesis ran {rounds * _ROUND} examples of up to 20 steps in {minutes:.0f} minutes, with
{tally["connections"]} connections in all, against one receiver. A step is valid input (instances in
fragments of any size, C-ECHO, release, abort, closing the connection) or invalid input, most of it
inside an association: damaged data sets and commands, wrong lengths of PDUs and PDVs, contexts that
were not accepted, interrupted messages, PDUs of any kind. After every example no half-written file
was left, every instance answered `0x0000` had its row and its file with that content, and a new
association could be opened for a C-ECHO.

Violations found: none (the command ends at the first). Internal errors of the receiver, caught and
logged: {faults}. Memory of the receiver after the first {_ROUND} examples {memory[0]:.0f} MB, at
the end {memory[-1]:.0f} MB. The shortest transcript for each of {n_files} sequences of reactions,
including those of earlier campaigns, is kept in `tests/fuzz/corpus/` and replayed by the test
suite.

| reaction | times |
|---|---|
{rows}
"""


if __name__ == "__main__":
    main()
