"""Sitrep's own side of the comparison: the bare wire, the real worker, and the limits they are held against."""
