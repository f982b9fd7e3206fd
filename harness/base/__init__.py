"""What everything stands on: errors, the store, progress, signals, provenance."""
