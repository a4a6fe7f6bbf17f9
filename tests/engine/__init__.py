"""Sequences through an engine: chunked = whole, batched = alone, resumed = cold."""
