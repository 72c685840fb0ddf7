"""Sources of data, one module for each kind."""
