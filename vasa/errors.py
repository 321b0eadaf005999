"""The one exception whose message is written for the user."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message says which input, what is wrong and what to do.

    The command line prints the message alone and exits with code 2.
    """
