"""Whether there is a login for W&B and a server that answers; nothing asks a terminal, nothing waits for long."""

import urllib.error
import urllib.request

ANSWER_SECONDS = 20
"""How long the server may take to answer."""


def login_problem() -> str | None:
    """Why there is no login for the server, with the remedy, in one line; None if there is. Asks no network.

    A login that the server does not accept shows only when it is used.
    """
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import wbauth

    try:
        login = wbauth.authenticate_session(host=_server(), source="spp", prompt=False, update_session=False)
    except AuthenticationError as error:
        return f"the W&B login cannot be used ({_first_line(error)}); say `wandb login --relogin` once on this machine"
    if login is None:
        return "there is no W&B login; say `wandb login` once on this machine, or set WANDB_API_KEY"
    return None


def account_problem() -> str | None:
    """Why runs cannot be exchanged with the server, with the remedy, in one line; None if they can."""
    problem, server = login_problem(), _server()
    if problem is not None:
        return problem
    try:
        with urllib.request.urlopen(server, timeout=ANSWER_SECONDS):
            return None
    except urllib.error.HTTPError:
        return None  # it answers, and that is all that was asked
    except (OSError, ValueError) as error:
        reason = _first_line(getattr(error, "reason", None) or error)
        return f"the W&B server {server} does not answer ({reason}); say it again where there is a network"


def _server() -> str:
    import wandb

    server: str = wandb.setup(wandb.Settings(silent=True)).settings.base_url
    return server


def _first_line(error: object) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
