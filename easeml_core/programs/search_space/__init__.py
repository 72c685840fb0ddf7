"""Search spaces of candidates: text, reader, sampling, names."""
