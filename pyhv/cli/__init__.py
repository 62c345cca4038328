"""The `pyhv` command. One module a subcommand, imported when it is called.

Exit status: 0 the guest passed, 1 it failed, 3 panic or triple fault, 124 timeout, 125 host, VMM or usage error,
130 interrupted from the keyboard.
"""

from __future__ import annotations

import sys

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_USAGE = 125
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit status; a user's mistake is one line on stderr, never a traceback."""
    from pyhv.cli.arguments import parse
    from pyhv.cli.options import HelpWanted, UsageError
    from pyhv.errors import PyhvError

    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        command, options = parse(arguments)
        if options.verbose:
            from pyhv.log import listen_with_structlog

            listen_with_structlog()
        module = __import__(command.function, fromlist=["command"])
        status: int = module.command(options)
        return status
    except HelpWanted as text:
        sys.stdout.write(f"{text}\n")
        return 0
    except UsageError as error:
        return _complain(str(error))
    except PyhvError as error:
        from pyhv.cli.arguments import as_option

        return _complain(as_option(str(error), arguments))
    except KeyboardInterrupt:
        _complain("interrupted")
        return EXIT_INTERRUPTED


def _complain(message: str) -> int:
    line = " ".join(message.split())
    sys.stderr.write(f"pyhv: {line}\n")
    return EXIT_USAGE
