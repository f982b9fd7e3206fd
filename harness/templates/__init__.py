"""The files that `harness new` fills in."""
