"""Whether a suite, a record or a whole run folder is what it says it is."""
