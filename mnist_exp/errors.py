"""What a user can get wrong. The command line prints these without a traceback; each is also a builtin."""


class UserError(Exception):
    """A mistake outside the program; its message names the rule, the value received and the remedy."""


class ConfigError(UserError, ValueError):
    """A config key or value that cannot be used."""


class DataError(UserError, ValueError):
    """A data set that cannot be read, or holds what no classifier can be trained on."""


class TrackingError(UserError, RuntimeError):
    """A tracking store that cannot be used."""


class TrainingError(UserError, ArithmeticError):
    """A training that cannot go on."""
