"""The laboratory: its arithmetic, its texts, and its runs over the bundled model."""
