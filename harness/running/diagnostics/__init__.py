"""What is asked of one subject, or of the rows of one cell."""
