"""How the benchmark ends where it cannot go on: a line that says what to do, and an exit status."""


class BenchError(Exception):
    """An expected failure. Status 2 is for wrong input, 1 for the rest."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


class ContestantFailed(BenchError):
    """One contestant cannot go on; the others can."""

    def __init__(self, contestant, message):
        super().__init__(message)
        self.contestant = contestant


class Disagreement(ContestantFailed):
    """One whose result is wrong."""
