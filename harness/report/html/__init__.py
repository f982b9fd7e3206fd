"""Reports as one file for a browser; nothing in it is fetched from elsewhere."""
