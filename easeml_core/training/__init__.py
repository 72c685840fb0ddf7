"""Real training jobs in child processes: trainers, limits, checkpoints and devices.

Begin with ``trainers`` (what can be trained), ``job`` (one training as data) and ``supervisor`` (one job under limits,
in a process that runs ``child``). Rows come from ``data``; ``models`` stores and reads what was trained; ``selection``
decides what a result means for the next choice.
"""
