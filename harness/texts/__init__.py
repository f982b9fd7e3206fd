"""Where the texts of corpora come from."""
