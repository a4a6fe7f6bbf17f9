"""What happens to machines and clients: clocks that jump, readers that do not read."""
