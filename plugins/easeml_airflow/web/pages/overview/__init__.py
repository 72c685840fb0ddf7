"""The page overview: routes and view, plots and templates."""
