"""Files that callers send and fetch again."""
