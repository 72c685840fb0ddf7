"""The default policy and the published ones."""
