"""Which profiles a machine can run, before anything is set up: ``epvs-node doctor --machine``.

Standard library only, and Python 3.9 or newer, so that ``python3 -m node.machine`` works in a fresh
clone without an environment: whoever uses containers alone needs none.
"""
