"""The one exception that users of ltl see."""


class LtlError(ValueError):
    """A mistake that the user can mend: one line that names the config key, what was given and what is allowed."""


class Diverged(LtlError):
    """A loss that is no finite number ended a trial; what else there was to train is done."""


class Spread(LtlError):
    """A loss that is no finite number, where networks pass as one: it may have reached those beside its own."""


class Stopped(Exception):
    """A run ended by itself, with a checkpoint, because its time was up."""


def refused(error: OSError) -> str:
    """Return what the system said, and of which file."""
    return f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error)
