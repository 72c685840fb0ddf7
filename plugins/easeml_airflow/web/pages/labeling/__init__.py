"""The page labeling: routes, view and templates."""
