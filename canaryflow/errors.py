"""The errors a user may meet, each with the exit status the command line gives it."""

from __future__ import annotations


class CanaryflowError(Exception):
    """Base of every error with a message for a person: one line, what was found, what was expected."""

    exit_code = 2


class InputError(CanaryflowError):
    """Something a person gave cannot be used."""


class BundleError(InputError):
    """A bundle is missing, altered, of another schema, or does not answer as recorded."""


class GateFailed(CanaryflowError):  # noqa: N818 - "gate failed" is the field's own phrase
    """A gate said no, or a canary was rolled back: the run is red, what is live stays."""

    exit_code = 1


class PlatformError(CanaryflowError):
    """Kubernetes or this machine cannot do what was asked: unreachable, a missing part, a port in use."""


class NotFound(PlatformError):  # noqa: N818 - the API's own word
    """The platform has no such object."""


class Conflict(PlatformError):  # noqa: N818 - the API's own word
    """The object changed since it was read (409, or a JSON Patch ``test`` that failed): read again."""
