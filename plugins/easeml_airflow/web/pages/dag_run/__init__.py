"""The page dag_run: routes, view and templates."""
