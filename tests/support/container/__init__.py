"""The container's image and its run, as far as a machine without Docker can tell."""
