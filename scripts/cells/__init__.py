"""One cell of the matrix: an Airflow and a Python in a separate environment with our wheel, and what is done there."""
