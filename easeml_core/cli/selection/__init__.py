"""Commands on model selection: the policy, backtests, simulations, and the error of predicted costs."""
