"""Evidence that a third party can check: hash chains, the referee's keys, high-water marks, signed bundles.

``keys.py`` has the key of a referee's host and what it remembers of every chain, ``verification.py`` recomputes chains
and names the first broken entry, ``notary.py`` is what the referee's process does with both. Rows are in
``store/tables/chain.py``, the cryptography in ``attestation.py``.
"""
