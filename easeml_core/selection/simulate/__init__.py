"""What a policy would have done on a table of known results: the scheduler without any training.

Data flows one way: a table (``tables``), a protocol and the contestants go in (``protocol``); ``repeats`` runs the
event loop (``run``) on all cores; ``report`` says what came of it, ``plot`` and ``compare`` show it.
"""
