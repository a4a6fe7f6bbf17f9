"""OpenAI's API over a service that repeats what it is told."""
