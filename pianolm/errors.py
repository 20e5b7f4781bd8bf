"""The two kinds of error: what a user can cause (`UserError`), and what only we can break (`assert`)."""

from __future__ import annotations


class UserError(ValueError):
    """Something a user can cause and can mend.

    The message is one sentence that names the file or key, what was found, what was expected and what to do. The
    command line prints it without a traceback and exits with code 1.
    """
