"""One extension of each kind for Ease.ml."""
