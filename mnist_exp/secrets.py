"""The secrets of this process: passwords in addresses, and those in environment variables. Hides them in text."""

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

USER, PASSWORD, TOKEN = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"
VARIABLES = (PASSWORD, TOKEN, "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY", "PGPASSWORD")
ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_BACKEND_STORE_URI")
HIDDEN = "***"
SHORTEST = 6  # characters of a secret that is hidden also where it stands alone; `a` is part of many words
USER_INFO = re.compile(r"(?<=//)[^/@\s]*(@[^/@\s]*)*@")
SETTING = re.compile(r"(?i)((?:\b|_)(?:password|passwd|pwd|token|secret|api_?key)=)[^\s&;'\",]+")

_addresses: set[str] = set()  # that were given to this process
_moved: dict[str, tuple[str, str | None]] = {}  # variable: the value that `move_credentials` set, and the one before


def remember(address: str) -> None:
    """Lets `hide` know the password of an address, also where the password stands alone."""
    if "@" in address or "=" in address:
        _addresses.add(address)


def hide(text: str) -> str:
    """Returns the text without user and password of the addresses in it, and with *** for every other secret."""
    for address in sorted(_known_addresses(), key=len, reverse=True):
        text = text.replace(address, without_secrets(address))
    text = without_secrets(text)
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def hide_in_file(path: Path) -> None:
    """Hides the secrets in a text file, in place."""
    with suppress(FileNotFoundError):
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        if (hidden := hide(text)) != text:
            path.write_bytes(hidden.encode("utf-8", "surrogateescape"))


def without_secrets(address: str) -> str:
    """Returns an address as it is recorded: without user and password, and with *** for a `password=` in its query."""
    return SETTING.sub(rf"\1{HIDDEN}", USER_INFO.sub("", address))


def move_credentials(address: str) -> str:
    """Returns the address of a server without user and password, which move to the variables that MLflow reads.

    So no library writes them into a log or an error. Local workers inherit the variables. The credentials of an
    earlier address are removed: they are not for this server. Any other address is returned as it is.
    """
    for name, (moved, before) in _moved.items():
        if os.environ.get(name) == moved:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before
    _moved.clear()
    remember(address)
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or parts.password is None:
        return address
    for name, value in ((USER, unquote(parts.username or "")), (PASSWORD, unquote(parts.password))):
        _moved[name] = value, os.environ.get(name)
        os.environ[name] = value
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def with_credentials(address: str) -> str:
    """Returns the address with the credentials that were moved, for a process that does not inherit the variables."""
    if not _moved:
        return address
    user, password = (quote(_moved[name][0], safe="") for name in (USER, PASSWORD))
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc}"))


def _known_addresses() -> set[str]:
    return _addresses | {os.environ[name] for name in ADDRESSES if os.environ.get(name)}


def _secrets() -> set[str]:
    """The secrets that are long enough to be hidden wherever they stand."""
    found = {os.environ.get(name, "") for name in VARIABLES}
    for address in _known_addresses():
        _, _, rest = address.partition("//")
        password = rest.rpartition("@")[0].partition(":")[2]
        written = [password, *(setting.partition("=")[2] for setting in map(str, _settings(address)))]
        found |= {form for text in written for form in (text, unquote(text))}
    return {secret for secret in found if len(secret) >= SHORTEST}


def _settings(address: str) -> list[str]:
    return [match.group() for match in SETTING.finditer(address)]
