"""Entry point of the process that `worker.grading.reading.Reader` starts."""

from worker.grading.reading.server import main

main()
