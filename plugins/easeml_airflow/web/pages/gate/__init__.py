"""The page gate: routes and view, planner and templates."""
