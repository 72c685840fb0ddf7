"""Pages, one package each: routes, view, charts and templates."""
