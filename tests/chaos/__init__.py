"""Faults, on purpose: each scenario breaks something real and asks the ledger what became of the posts."""
