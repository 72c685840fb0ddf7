"""Which trials run next: the scheduler, what it believes, its policy, costs and backtest."""
