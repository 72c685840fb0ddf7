"""The page overview: routes, view and templates."""
