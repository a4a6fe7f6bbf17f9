"""Tests of the library of conversations, over SQLite in a file, in memory, and PostgreSQL."""
