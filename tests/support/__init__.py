"""What tests share: small checkpoints, a service that echoes, stand-ins for platforms."""
