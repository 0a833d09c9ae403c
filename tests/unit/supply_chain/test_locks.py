from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from supply_chain.locks import Pin, read_lock

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "ab" * 32


def test_a_lock_is_read(tmp_path: Path) -> None:
    path = tmp_path / "some.lock"
    path.write_text(
        f"Boolean.py==5.0 \\\n    --hash=sha256:{DIGEST}\n"
        f"numpy==2.4.6 ; python_full_version < '3.12' \\\n"
        f"    --hash=sha256:{DIGEST} \\\n    --hash=sha256:{'cd' * 32}\n"
    )
    assert read_lock(path) == [
        Pin("boolean-py", "5.0", "", (DIGEST,)),
        Pin("numpy", "2.4.6", 'python_full_version < "3.12"', (DIGEST, "cd" * 32)),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "numpy",
        "numpy>=2",
        "numpy==2.*",
        "numpy==2",
        f"numpy==2 --hash=md5:{DIGEST}",
        f"numpy==2 --hash=sha256:{DIGEST[1:]}",
        f"numpy==2,<3 --hash=sha256:{DIGEST}",
        f"numpy @ https://example.org/numpy.whl --hash=sha256:{DIGEST}",
        "--index-url https://example.org",
        "-r other.lock",
        "",
        " ",
    ],
)
def test_what_is_not_locked_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "some.lock"
    path.write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"some\.lock"):
        read_lock(path)
