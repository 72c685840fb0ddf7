"""The page submissions: routes, view and templates."""
