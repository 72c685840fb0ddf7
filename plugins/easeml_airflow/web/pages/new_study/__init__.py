"""The page new_study: routes, view and templates."""
