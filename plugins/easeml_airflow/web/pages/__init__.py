"""Pages, a module or a package each: its routes, its typed view and its charts."""
