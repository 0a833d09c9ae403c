"""Orthanc as the PACS that receives results and, by an auto-forward rule, sends studies."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from node.demonstration.pacs import OrthancPacs

if TYPE_CHECKING:
    from pathlib import Path

FORWARD_MR = """
-- As in a hospital's PACS: forward every MR instance to the node.
function OnStoredInstance(instanceId, tags, metadata, origin)
  if tags['Modality'] == 'MR' then
    SendToModality(instanceId, 'epvs')
  end
end
"""


def start_orthanc(
    work_dir: Path,
    configuration: dict[str, object] | None = None,
    *,
    forward_to: tuple[str, int] | None = None,
) -> OrthancPacs:
    """Start Orthanc with an empty store; ``forward_to=(AE title, port)`` adds the rule above."""
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise RuntimeError("Orthanc is not installed; `make test` installs it")
    configuration = configuration or {}
    if forward_to is not None:
        work_dir.mkdir(parents=True, exist_ok=True)
        script = work_dir / "forward.lua"
        script.write_text(FORWARD_MR)
        ae_title, port = forward_to
        configuration = {
            "LuaScripts": [str(script.absolute())],
            "DicomModalities": {"epvs": [ae_title, "127.0.0.1", port]},
        }
    return OrthancPacs.start(program, work_dir, configuration)
