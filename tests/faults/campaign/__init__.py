"""The fault campaign: every dependency of the node fails while studies are sent and delivered.

``python -m tests.faults.campaign --minutes 5 --seed 1 --site embedded`` (or ``hosts``), as root. A
seed gives the same faults at the same times. Senders store continuously and note what was
acknowledged; two archives misbehave. Parts of the node, Redis and the database are killed, paused
and emptied, disks filled, hosts cut off. In the end everything is mended, work must move within
60 s, and what must hold is checked: by `db.consistency`, as ``epvs-node doctor --deep`` does, and
against what senders and archives know. The command ends with 1 if anything was lost, doubled or is
stuck, and writes ``docs/results/reliability.md``.
"""
