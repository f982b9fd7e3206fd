"""The tables of a report, a file each."""
