"""The weights of feed-forward networks: starts, constraints, and what they keep."""
