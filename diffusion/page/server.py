"""`diffusion page`: serves the page at an address that it prints, until Ctrl-C."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import re
import secrets
import socket
import sys
import threading
import webbrowser
from urllib.parse import quote

from diffusion.commands.options import Page
from diffusion.errors import InputError, require

NEEDED = ("starlette", "uvicorn")
INSTALL = "pip install 'reverse-diffusion[page]'"
# The port where none is asked for, and how many after it are tried.
PORT, TRIED = 8765, 100
# A token goes into a URL and a header as it is.
TOKEN, LEAST = re.compile(r"[A-Za-z0-9._~-]+"), 8
# The seconds that answers may take when the page ends.
ENDING_S = 3


def page(options: Page) -> int:
    """Serves the page until a signal ends it.

    Raises InputError where the page cannot be served: without its libraries, at an address that is not this machine's
    or is taken, or for a folder that is not there; KeyboardInterrupt after Ctrl-C.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"diffusion page: needs {' and '.join(missing)}: {INSTALL}")
    # A page may be opened before the first run is begun.
    usable = options.path.is_dir() or (options.path == Page.path and not options.path.exists())
    require(usable, "PATH", "a run or a folder of runs, such as diffusion demo makes", options.path)
    token = token_of(options)
    with listening(options.host, options.port) as opened:
        port = opened.getsockname()[1]
        if options.port is None and port != PORT:
            print(f"port {PORT} is taken; {port} is free", file=sys.stderr)
        address = f"http://{shown(options.host)}:{port}/"
        url = f"{address}?token={quote(token)}" if token else address
        print(url, flush=True)
        if options.open:
            threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()
        _serve(options, token, address, opened)
    return 0


def _serve(options: Page, token: str | None, address: str, opened: socket.socket) -> None:
    """Answers at an open socket until a signal."""
    import uvicorn

    from diffusion.page.app import application
    from diffusion.page.guard import Guard

    class Server(uvicorn.Server):
        """A server that ends the connections that would not end by themselves."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.site.events.close()
            await super().shutdown(sockets)

    app = application(options.path, address)
    wide = is_wide(options.host)
    names = frozenset({socket.gethostname().lower(), socket.getfqdn().lower()} if wide else {options.host.lower()})
    config = uvicorn.Config(
        Guard(app, names, token, any_address=wide),
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=ENDING_S,
        ws="none",
    )
    Server(config).run(sockets=[opened])


def token_of(options: Page) -> str | None:
    """Returns the token that a page asks for, made up where one is needed and none is given; None without one.

    Raises InputError for a token that is short or cannot be in a URL as it is.
    """
    if options.token is None:
        return None if is_loopback(options.host) else secrets.token_urlsafe(24)
    rule = f"at least {LEAST} letters, digits or any of . _ ~ -"
    require(len(options.token) >= LEAST and TOKEN.fullmatch(options.token), "--token", rule, repr(options.token))
    return options.token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_wide(host: str) -> bool:
    """Whether an address stands for all of this machine's, as 0.0.0.0 does."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def shown(host: str) -> str:
    """Returns the host as it is in a URL: the name of this machine where it listens at all of its addresses."""
    name = socket.gethostname() if is_wide(host) else host
    return f"[{name}]" if ":" in name else name


def listening(host: str, port: int | None) -> socket.socket:
    """Returns a socket that listens at a port, by default 8765 or the next free one.

    Raises InputError for a port that is taken, that is none, and for an address that is not this machine's.
    """
    require(port is None or 0 <= port < 65536, "--port", "from 0, any free one, to 65535", port)
    for tried in range(PORT, PORT + TRIED) if port is None else [port]:
        try:
            family = socket.getaddrinfo(host, tried, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((host, tried), family=family, backlog=128)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            if error.errno == errno.EADDRINUSE:
                raise InputError(f"--port: {port} is taken; leave it out for one that is free") from error
            raise InputError(f"--host: cannot listen at {host}, port {tried} ({error.strerror or error})") from error
    raise InputError(f"--port: {PORT} to {PORT + TRIED - 1} are all taken; choose another one")
