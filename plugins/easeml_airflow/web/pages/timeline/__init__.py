"""The page timeline: routes, view and templates."""
