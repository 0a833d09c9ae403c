"""Synthetic subjects: T2-weighted heads with a known number of enlarged perivascular spaces.

Imports numpy, SimpleITK, pydicom and `core` alone: the node itself generates its demonstration
study with this package, in an environment without torch and SciPy.

Everything is in LPS millimetres (+x patient's left, +y posterior, +z superior), either of MNI space
or of the patient, as each name says; arrays are indexed (slice, row, column).
"""
