"""Model families, and how their checkpoints are loaded."""
