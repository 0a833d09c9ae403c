"""Generator of synthetic T2-weighted heads with a known number of enlarged perivascular spaces.

It imports only numpy, SimpleITK, pydicom and `core`, because the node uses it to generate its
demonstration study in an environment without torch and SciPy.

Coordinates are LPS millimetres (+x patient's left, +y posterior, +z superior), in MNI space or in
patient space as the names say. Arrays are indexed (slice, row, column).
"""
