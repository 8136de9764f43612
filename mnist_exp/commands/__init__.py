"""The commands of the command line, one module each."""

COMMANDS = (
    "compare",
    "completion",
    "demo",
    "export",
    "figures",
    "new",
    "predict",
    "promote",
    "reproduce",
    "runs",
    "store",
    "sweep",
    "ui",
)
