"""What the commands report in one line: they raise these, __main__ prints them and exits."""


class Refused(Exception):
    """Wrong input; says what is wrong and what to do."""

    status = 2


class Failed(Exception):
    """The command cannot do its work; says why."""

    status = 1
