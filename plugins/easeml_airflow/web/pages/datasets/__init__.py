"""The page datasets: routes, view and templates."""
