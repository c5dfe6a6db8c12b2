"""The one exception that users of ltl see."""


class LtlError(ValueError):
    """A mistake that the user can mend: one line that names the config key, what was given and what is allowed."""
