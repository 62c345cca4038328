"""What can go wrong in the rig, outside of the command that runs in it.

RigError
├── RigSetupError   the rig cannot start: a missing package, a bad option; nothing ran
└── RigLost         the machine ended, or could not prepare the command, without the command's status
"""


class RigError(Exception):
    """The common base."""


class RigSetupError(RigError):
    """One line that names what is wrong and what mends it."""


class RigLost(RigError):
    """The machine is gone or useless; `details` holds the console's and the helpers' last lines."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details
