"""The model adapters that the project ships; a new file here is found by itself."""
