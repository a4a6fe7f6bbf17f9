"""The model against transformers, and each implementation against plain torch."""
