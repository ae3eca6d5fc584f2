"""Labelled posts and pictures, read from files; trains and measures nothing."""
