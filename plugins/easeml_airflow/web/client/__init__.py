"""The client of a tenant's program: one file for download, which no module here imports."""
