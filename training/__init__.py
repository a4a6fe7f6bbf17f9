"""The recipe of the bundled model, from data to export. The app imports nothing of it."""
