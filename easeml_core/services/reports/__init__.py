"""Reports that span several subjects, for the command line, the API and the pages."""
