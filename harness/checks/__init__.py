"""What `harness validate` checks, part by part."""
