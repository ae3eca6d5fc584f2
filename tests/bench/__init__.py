"""Measures Sitrep from outside; every number in the README comes from a file written here or by the model."""
