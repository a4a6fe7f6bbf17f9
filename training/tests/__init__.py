"""The generator, the trainer and the model's card, at sizes that a laptop takes in seconds."""
