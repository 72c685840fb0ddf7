"""What people see of results outside the pages and the command line: figures, and tables in notebooks."""
