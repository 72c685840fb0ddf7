"""The page use: routes, view and templates."""
