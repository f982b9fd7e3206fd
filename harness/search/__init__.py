"""The loops that attacks and their controls share."""
