"""The whole app: its settings, its start, its docs, and what may import what."""
