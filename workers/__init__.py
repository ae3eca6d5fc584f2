"""The Faust app that joins `stream` to `model`: settings, the two stages, metrics and health."""
