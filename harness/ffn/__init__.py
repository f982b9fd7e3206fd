"""Feed-forward networks: starts, parametrizations, and what is true of them."""
