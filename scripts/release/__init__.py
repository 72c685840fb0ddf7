"""A release: pinned versions, distributions, the list of their components, and where they come from."""
