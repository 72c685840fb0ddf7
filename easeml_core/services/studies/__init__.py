"""What a study consists of: columns, candidates, limits, compute budget, uploads."""
