"""How a suite file becomes a checked `Suite`."""
