"""The page inside Airflow's API server; imported by that server alone."""
