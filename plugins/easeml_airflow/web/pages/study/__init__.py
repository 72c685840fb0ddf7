"""The page study: routes, view and templates."""
