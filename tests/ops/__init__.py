"""Each kernel against the operation in plain torch."""
