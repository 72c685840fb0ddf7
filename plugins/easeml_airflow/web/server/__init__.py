"""What every request passes: site, service, authentication, limits of requests, formats, and the runs of Airflow."""
