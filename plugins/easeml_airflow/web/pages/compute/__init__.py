"""The page compute: routes and view, plots and templates."""
