"""ease.ml/meter: how much the validation set has been overfitted."""
