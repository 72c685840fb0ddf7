"""The page compute: routes, view and templates."""
