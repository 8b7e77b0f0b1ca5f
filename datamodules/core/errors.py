"""Errors that a user can mend. They are one line: what was wrong, where, and what to do."""


class UserError(Exception):
    """A mistake in options, configs or files. Commands print it without a stack trace and exit with 2."""


class BadSampleError(UserError):
    """One sample that cannot be decoded; `on_bad_sample` decides what follows."""


class TooShort(BadSampleError):
    """One sample that can be decoded but is shorter than the data set asks for."""
