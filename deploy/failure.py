"""What a command tells its user when it cannot do what was asked; the message is one line with the fix."""


class CommandFailed(Exception):
    """The command cannot do what was asked."""
