"""Evidence that a third party can check: hash chains, the referee's keys, high-water marks, signed bundles.

``keys.py`` holds a referee host's key and its high-water marks, ``verification.py`` recomputes chains and names the
first broken entry, ``notary.py`` does both for the referee's process. Rows are in ``store/tables/chain.py``, the
cryptography in ``attestation.py``.
"""
