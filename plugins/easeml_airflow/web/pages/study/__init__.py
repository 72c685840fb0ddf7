"""The page study: routes and view, plots and templates."""
