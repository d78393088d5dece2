"""How the examples' programs end: a line that says what to do, and an exit status."""

import sys


class DemoError(Exception):
    """An expected failure. Status 2 is for wrong input, 1 for the rest."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


def exit_on_error(program, main):
    """Run main and exit; an expected failure becomes `program: message` and its status."""
    try:
        sys.exit(main())
    except DemoError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(error.status)
    except OSError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{program}: interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)
