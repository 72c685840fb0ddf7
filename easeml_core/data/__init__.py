"""Tables, columns and splits of data."""
