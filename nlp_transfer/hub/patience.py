"""Try again what may succeed the second time, and say in a line what will not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from huggingface_hub import get_token
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from nlp_transfer.checkpoint_folders import status_of
from nlp_transfer.durable import FULL
from nlp_transfer.errors import ConfigError, HubError, first_line
from nlp_transfer.reporting.progress import say

T = TypeVar("T")
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new try: half a minute in all, as long as a server takes to start again."""
MAX_WAIT = 120.0
"""Seconds that a server may ask for."""
ODD_CARD = "Invalid metadata in README.md"
"""So huggingface_hub begins a ValueError, with all that is wrong in lines below."""
LATER = {408, 412, 429, 500, 502, 503, 504}
"""412: somebody else has committed meanwhile; what is there is looked at anew."""


def persistently(what: str, attempt: Callable[[], T], *, seconds: float, waits: tuple[float, ...] = WAITS) -> T:
    """The result of ``attempt``, tried again after what passes: failures of the server and of the network, and silence
    of more than ``seconds``. ``attempt`` must begin by looking at what is there already.

    Raises ConfigError for what the user can mend (token, rights, names), HubError for all else.
    """
    for wait in (*waits, None):
        try:
            return within(seconds, attempt)
        except (ConfigError, HubError):
            raise
        except Exception as error:
            if isinstance(error, HfHubHTTPError) and status_of(error) not in LATER:
                raise refusal(what, error) from error
            if isinstance(error, ValueError) and str(error).startswith(ODD_CARD):
                raise ConfigError(f"{what}: the Hub refuses the card: {' '.join(str(error).split()[5:])}") from error
            if isinstance(error, OSError) and (error.filename is not None or error.errno in FULL):  # of a file here
                raise
            if wait is None or not may_pass(error):
                raise HubError(f"{what}: {reason(error)}. Give the same command again to go on.") from error
            seconds_off = max(wait, min(asked_for(error), MAX_WAIT))
            say(f"{what}: {reason(error)}; trying again in {seconds_off:g} s.")
            time.sleep(seconds_off)
    raise AssertionError("the last try returns or raises")


def within(seconds: float, work: Callable[[], T]) -> T:
    """huggingface_hub sets no limit of time, and Xet may ask for ever: the work gets a thread that may be left."""
    found: dict[str, Any] = {}

    def run() -> None:
        try:
            found["result"] = work()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
            found["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if "error" in found:
        raise found["error"]
    if "result" not in found:
        raise TimeoutError(f"no answer within {seconds:g} s")
    result: T = found["result"]
    return result


def may_pass(error: Exception) -> bool:
    """Of what is no answer of the Hub's: errors of the network are httpx2's, or hf_xet's (RuntimeError)."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, OSError | RuntimeError) or bool(
        kinds & {"HTTPError", "TransportError", "XetDownloadError"}
    )


def asked_for(error: Exception) -> float:
    """Seconds, as ``Retry-After`` says."""
    headers = error.response.headers if isinstance(error, HfHubHTTPError) and error.response is not None else {}
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def reason(error: Exception) -> str:
    said = getattr(error, "server_message", None)
    if isinstance(error, HfHubHTTPError):
        return f"the Hub answers {status_of(error)}{f' ({said})' if said else ''}"
    what = "no connection" if may_pass(error) else "huggingface_hub fails"
    return f"{what} ({type(error).__name__}: {first_line(error)})"


def refusal(what: str, error: HfHubHTTPError) -> Exception:
    said = f" ({error.server_message})" if getattr(error, "server_message", None) else ""
    if status_of(error) == 401 and get_token():  # over https the client takes it for a missing repository
        return ConfigError(
            f"{what}: the Hub does not take the token{said}. Log in with `hf auth login`, or set HF_TOKEN."
        )
    if isinstance(error, RevisionNotFoundError):
        return ConfigError(f"{what}: the repository has no such revision{said}.")
    if isinstance(error, GatedRepoError):
        return ConfigError(f"{what}: the repository asks for consent first. Give it on its page, then try again.")
    if isinstance(error, RepositoryNotFoundError) or status_of(error) == 404:
        how = "check the name" if get_token() else "log in with `hf auth login`, or set HF_TOKEN, if it is private"
        return ConfigError(f"{what}: there is no such repository, or no right to read it; {how}.")
    if status_of(error) == 403:
        return ConfigError(f"{what}: the Hub refuses{said}. The token needs the right to write there.")
    return HubError(f"{what}: {reason(error)}.")
