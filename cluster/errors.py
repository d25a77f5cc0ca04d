"""What a person is told when the request was wrong."""


class UserError(Exception):
    """A mistake in what was asked: one sentence with the place, and the remedy.

    The command line prints both and exits with 2; nobody sees a traceback.
    """

    exit_code = 2

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.remedy}" if self.remedy else self.message


class GateClosed(UserError):
    """A required gate is closed, or its evidence is missing: exit code 3."""

    exit_code = 3


class StageFailed(UserError):
    """The request was right and the work failed, or was stopped, for a reason that a person can act on: exit code 1."""

    exit_code = 1


class Stopped(StageFailed):
    """The work ended because it was asked to."""


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, in a line; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
