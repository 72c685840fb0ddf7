"""The page decision: routes, view and templates."""
