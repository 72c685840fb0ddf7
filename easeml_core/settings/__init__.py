"""What values may be and what a user may set: limits, settings of the algorithms, connections, requests for devices.

Standard library and attrs only, since every DAG file that is parsed comes by here. Imports ``entities`` and ``errors``.
"""
