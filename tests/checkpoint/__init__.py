"""From a name to weights: small files, the hub, what fits, and damaged files."""
