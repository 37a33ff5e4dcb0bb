"""The one exception the library raises when what it was handed cannot be used."""


class InputError(ValueError):
    """Unusable input: a file, an array, a flag.

    The message is one line that names the thing, what was found, what was expected and the mend.
    Command lines print it and leave with exit code 2.
    """
