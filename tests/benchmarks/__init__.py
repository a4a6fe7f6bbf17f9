"""The benchmarks at small sizes: they run, and their figures are possible ones."""
