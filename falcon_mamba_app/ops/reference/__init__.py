"""Every operation in plain torch for any device, and the tensors of 4-bit storage."""
