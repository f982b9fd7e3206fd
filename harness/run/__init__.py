"""Do a plan: train, measure, attack, write records; look after the run folder."""
