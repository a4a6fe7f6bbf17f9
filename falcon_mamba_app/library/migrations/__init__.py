"""The versions of the schema for alembic: `env` connects it, `versions/` has a file for each."""
