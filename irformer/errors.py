"""What a user's mistake raises."""


class UserError(ValueError):
    """A mistake that the user can mend: the message names the file or key, what was expected, what was found and what to do.

    The commands print its message as one line and exit with status 1; everything else keeps its traceback.
    """
