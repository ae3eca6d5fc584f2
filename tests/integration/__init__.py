"""The pipeline end to end, over real sockets."""
