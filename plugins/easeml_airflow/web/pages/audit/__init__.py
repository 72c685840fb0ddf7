"""The page audit: routes, view and templates."""
