"""The text of --help: choices, and keys with their comments."""

import textwrap

from omegaconf import OmegaConf

from mnist_exp.config.compose import GROUPS, options


def _choices() -> str:
    """Every group with its choices, for --help."""
    lines = (f"{group}: {', '.join(options(group))}" for group in GROUPS)
    return "\n".join(textwrap.fill(line, 80, subsequent_indent="  ") for line in lines)


OmegaConf.register_new_resolver("mnist_exp.choices", _choices, replace=True)
