"""Errors meant for the person at the keyboard."""


class UserError(Exception):
    """Something a user can mend. The message is one line that says what is wrong and what to do next.

    `exit_status` is what the command line ends with: 1 when something failed, 2 for wrong usage.
    """

    exit_status = 1

    def _render_traceback_(self) -> list[str]:
        """Show the message alone in a notebook: a traceback through the package would help nobody."""
        return [f"kicourse: {self}"]


class UsageError(UserError):
    """The command was used wrongly: a name that does not exist, a file that is not what was asked for."""

    exit_status = 2
