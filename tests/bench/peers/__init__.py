"""Other people's frameworks doing Sitrep's job, each written as its own documentation would have it."""
