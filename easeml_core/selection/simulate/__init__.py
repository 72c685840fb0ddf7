"""What a policy would have done on a table of known results: the scheduler without any training.

Data flows one way: a table (``tables``, ``synthetic``), a protocol and the contestants go in; ``repeats`` runs the
event loop (``run``) on all cores; ``metrics`` and ``report`` say what came of it, ``plot`` and ``fairness`` show it.
"""
