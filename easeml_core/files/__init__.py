"""Files: whole or not at all on this machine, and those elsewhere, by address, through a cache on this machine.

Standard library only, but for object stores, which are reached through fsspec (extra ``remote``) when one is named.
Imports ``formats``, ``entities`` and ``errors``.
"""
