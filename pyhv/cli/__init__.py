"""The `pyhv` command. One module a subcommand, imported when it is called.

Exit status: 0 the guest passed, 1 it failed, 3 panic or triple fault, 124 timeout, 125 host, VMM or usage error,
130 interrupted from the keyboard.
"""

from __future__ import annotations

import os
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
    _open_standard_streams()
    try:
        command, options = parse(arguments)
        if options.verbose:
            from pyhv.log import listen_with_structlog

            listen_with_structlog()
        module = __import__(command.function, fromlist=["command"])
        status: int = module.command(options)
        return status
    except HelpWanted as text:
        return _help(f"{text}\n")
    except UsageError as error:
        return _complain(str(error))
    except PyhvError as error:
        from pyhv.cli.arguments import as_option

        return _complain(as_option(str(error), arguments))
    except KeyboardInterrupt as why:
        _complain(str(why) or "interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:  # a mistake of pyhv's own is no verdict on the guest: it must not end with Python's status 1
        from traceback import print_exc

        print_exc()
        return _complain(f"a bug in pyhv: {type(error).__name__}: {error}")


def emit(text: str) -> None:
    """Print on stdout, at once. A reader that has gone away wants no more; any other failure is a UsageError."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)  # for what the buffer still holds
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            from pyhv.cli.options import UsageError

            raise UsageError(f"standard output cannot be written: {error.strerror}") from None


def _help(text: str) -> int:
    from pyhv.cli.options import UsageError

    try:
        emit(text)
    except UsageError as error:
        return _complain(str(error))
    return 0


def _complain(message: str) -> int:
    line = " ".join(message.split())
    try:  # noqa: SIM105 - contextlib is not imported for this
        sys.stderr.write(f"pyhv: {line}\n")
    except OSError:
        pass
    return EXIT_USAGE


def _open_standard_streams() -> None:
    """Streams that were closed when the process began: their numbers must not become those of other files.

    Reading gives the end at once, writing to stdout fails, and stderr is lost.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
