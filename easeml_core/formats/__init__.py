"""How values are written: JSON, CSV, YAML, signed envelopes, and the tables and plots that people read.

Pure functions of values and bytes. Imports ``entities`` and ``errors``.
"""
