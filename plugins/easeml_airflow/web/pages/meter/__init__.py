"""The page meter: routes, view and templates."""
