"""The gate, Ease.ml/ci: condition language, planner, counts and verdicts. Nothing is imported here, to stay cheap."""
