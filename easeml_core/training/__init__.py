"""Real training jobs in child processes: data sources, trainers, limits, and models saved without pickle.

Who reads in order begins with ``sources`` (where rows come from), ``parts`` (who may see which rows), ``trainers``
(what can be trained), ``supervisor`` (one job under limits) and ``predict`` (a stored model on given rows).
What a result means for the next choice is not here: that is ``selection``.
"""
