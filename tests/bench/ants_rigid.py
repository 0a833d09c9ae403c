"""Rigid registration with ANTsPy, run by ``tests.bench.registration`` in its own environment.

``python ants_rigid.py FIXED.nii.gz POINTS.csv MOVING.nii.gz…`` prints one JSON line per scan: the
duration in seconds, and the position in the scan of each point (x, y, z of the fixed image, LPS
mm). It imports nothing from this project.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

import ants
import pandas as pd


def main(fixed_file: str, points_file: str, *moving_files: str) -> None:
    fixed, points = ants.image_read(fixed_file), pd.read_csv(points_file)
    for file in moving_files:
        moving = ants.image_read(file)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found = ants.registration(
                fixed, moving, type_of_transform="Rigid", outprefix=f"{folder}/"
            )
            seconds = time.perf_counter() - started
            # Points go the other way than images do: from the fixed image into the scan.
            at = ants.apply_transforms_to_points(3, points, found["fwdtransforms"])
        print(json.dumps({"seconds": seconds, "points": at[["x", "y", "z"]].to_numpy().tolist()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
