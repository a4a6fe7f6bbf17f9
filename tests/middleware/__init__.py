"""The layers around the app: doors, limits, and what browsers are told."""
