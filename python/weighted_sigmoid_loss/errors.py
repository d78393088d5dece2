"""Expected failures: their message says what is wrong and what to do, and needs no traceback."""


class Failure(Exception):
    """Something did not work; status is the exit status of a command that ends with it."""

    status = 1


class Refused(Failure):
    """Wrong input."""

    status = 2
