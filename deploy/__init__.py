"""How Sitrep is run: the command line, the demo and the embedded services it may start."""
