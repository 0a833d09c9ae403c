"""Reading the files of a study, which come from outside, in processes that may die of it."""

from worker.grading.reading.reader import Reader
from worker.grading.reading.study import read_study

__all__ = ["Reader", "read_study"]
