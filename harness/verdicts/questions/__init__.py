"""The questions behind a verdict, each answered from records and rows."""
