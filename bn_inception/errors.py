"""The exceptions that a user may see."""


class UserError(ValueError):
    """Bad input: one line naming the thing, the value, what is allowed and the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """


class AgreedError(UserError):
    """A UserError that every process of a run raises alike; only the first one prints it."""
