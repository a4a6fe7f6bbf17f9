"""Files that callers send and fetch again: `store` keeps them, in a folder or in memory."""
