"""Files of models and checkpoints, local or remote."""
