"""The only door to a model: losses, gradients, tokens, and what they cost."""
