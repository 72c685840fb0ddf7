"""PostgreSQL state: tables, migrations, listening, artifacts, and the embedded server that may hold it all."""
