"""The plugins that the project ships, found through the same door as any other."""
