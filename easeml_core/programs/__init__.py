"""Declarative programs: what goes in and what comes out, and which candidates that calls for.

Nothing is imported here, to stay cheap.
"""
