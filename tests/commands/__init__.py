"""The subcommands of falcon-mamba."""
