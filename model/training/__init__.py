"""How the shipped checkpoint is made, and the protocol of its figures; serves nothing."""
