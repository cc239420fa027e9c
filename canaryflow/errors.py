"""The errors a user may meet, each with the exit status the command line gives it."""

from __future__ import annotations


class CanaryflowError(Exception):
    """Base of every error with a message for a person: one line, the thing, what was found, what was expected."""

    exit_code = 2


class InputError(CanaryflowError):
    """Something a person gave cannot be used: a file, a parameter, a contract, a bundle."""


class BundleError(InputError):
    """A bundle is missing, altered, of another schema, or does not answer as recorded."""


class GateFailed(CanaryflowError):  # noqa: N818 - "gate failed" is the field's own phrase
    """A gate said no, or a canary was rolled back: the run is red and nothing live was changed for the worse."""

    exit_code = 1


class PlatformError(CanaryflowError):
    """The platform (Kubernetes, or this machine's) cannot do what was asked: unreachable, missing part, port in use."""


class NotFound(PlatformError):  # noqa: N818 - the API's own word
    """The platform has no such object."""


class Conflict(PlatformError):  # noqa: N818 - the API's own word
    """The object changed since it was read (409, or a JSON Patch ``test`` that no longer holds): read again."""
