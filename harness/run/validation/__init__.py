"""Is a suite, a record, or a whole run folder what it says it is?"""
