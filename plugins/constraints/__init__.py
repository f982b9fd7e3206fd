"""The constraints that the project ships; a new file in this folder is found by itself."""
