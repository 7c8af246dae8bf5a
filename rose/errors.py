"""Errors that are the user's to mend."""


class RoseError(ValueError):
    """One line that names the key, the value and what is allowed; printed without a traceback, exit code 1."""
