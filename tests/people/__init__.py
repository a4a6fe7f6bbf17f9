"""Users, keys, and the commands that make them."""
