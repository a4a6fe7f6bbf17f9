"""Several copies of the app: their routing and lives, and conversations that move between them."""
