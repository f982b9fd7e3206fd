"""Models: load, constrain, certify, train, freeze."""
