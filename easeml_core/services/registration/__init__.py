"""A new study: the preview of its data, registration, and the sealing of its test sets."""
