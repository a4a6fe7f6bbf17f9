"""The services: one contract for all, and what each does besides."""
