"""Files elsewhere: which addresses may be read, and a cache on this machine that what is read goes through.

Standard library only, but for object stores, which are reached through fsspec (extra ``remote``) when one is named.
"""
