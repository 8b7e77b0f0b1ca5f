"""Errors that the user can fix. Their message is one line: what was wrong, where, and what to do."""


class UserError(Exception):
    """A mistake in options, configs or files. Commands print it without a stack trace and exit with status 2."""


class BadSampleError(UserError):
    """A sample that cannot be decoded. `on_bad_sample` decides whether it is skipped."""


class TooShort(BadSampleError):
    """A sample that can be decoded but is shorter than the data set requires."""
