"""States as files: names, checks, budgets, and the places they lie in."""
