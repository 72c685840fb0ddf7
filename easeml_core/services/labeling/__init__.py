"""Labels: which are requested, annotations, the labeling page, and adjudication of disagreement."""
