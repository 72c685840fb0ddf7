"""The page gate: routes, view and templates."""
