"""Where a service listens: its address, who may reach it, and its TLS."""

import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cluster.errors import UserError

HEAD = "node:__internal_head__"
"""Ray's resource that its head alone has."""


@dataclass(frozen=True)
class Address:
    """Where Ray Serve's proxy listens."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: str | None = None
    """PEM file with the certificate, and those between it and its authority; None: HTTP."""
    key: str | None = None
    """PEM file with the certificate's private key, not encrypted."""

    @property
    def url(self) -> str:
        """As one on this machine reaches it."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"

    @property
    def is_here_alone(self) -> bool:
        """Whether no other machine can reach it."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            # A name may lead anywhere, tomorrow too.
            return False

    def check_tls(self) -> None:
        """Raise UserError when the two files are no certificate and its key that this machine can read."""
        if self.certificate is None or self.key is None:
            return
        for file in (self.certificate, self.key):
            try:
                Path(file).open("rb").close()
            except OSError as error:
                raise UserError(
                    f"{file} cannot be read: {error.strerror}.",
                    "Name PEM files of the machine that listens: `--tls-certificate FILE --tls-key FILE`.",
                ) from None
        try:
            # An encrypted key would have its password asked for at the terminal of a process that has none.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, password="")
        except (ssl.SSLError, ValueError) as error:
            raise UserError(
                f"{self.certificate} and {self.key} are no certificate and its private key: "
                f"{getattr(error, 'reason', None) or error}.",
                "Both are PEM; the key is the certificate's own, and has no password.",
            ) from None


def address(host: str, port: int, certificate: str | None, key: str | None, is_here: bool) -> Address:
    """An address that a command names; `is_here`: this machine will listen.

    Raises UserError when one of both files is missing, when this machine is to listen and cannot use them, or when
    another is and a path depends on the folder that one is in.
    """
    if (certificate is None) != (key is None):
        raise UserError(
            "TLS takes a certificate and its key, and one of them is missing.",
            "Name both: `--tls-certificate FILE --tls-key FILE`.",
        )
    if certificate is None or key is None:
        return Address(host, port)
    if is_here:
        found = Address(host, port, str(Path(certificate).absolute()), str(Path(key).absolute()))
        found.check_tls()
        return found
    for file in (certificate, key):
        if not Path(file).is_absolute():
            raise UserError(
                f"{file}: the cluster's head listens, and is in another folder.",
                "Name the whole path that the file has on the head.",
            )
    return Address(host, port, certificate, key)


def check_on_head(where: Address) -> None:
    """Let the machine that listens, the head of the joined Ray, look at its files. Raises UserError as it does.

    Serve's proxy would say nothing, count as well, and refuse every connection.
    """
    import ray
    from ray.exceptions import RayTaskError

    if where.certificate is None:
        return
    look: Any = ray.remote(num_cpus=0, resources={HEAD: 0.001})(Address.check_tls)
    try:
        ray.get(look.remote(where))
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, UserError) else error from None


def start_proxy(where: Address) -> None:
    """Start Serve's HTTP proxy. Raises UserError when another process has the port, or Serve listens elsewhere."""
    from ray import serve as ray_serve

    if running := _running():
        # Serve would go on at its address without a word, and this service with it.
        _check_same(running, where)
    else:
        _check_free(where)
    options = {
        "host": where.host,
        "port": where.port,
        "keep_alive_timeout_s": 75,
        "ssl_certfile": where.certificate,
        "ssl_keyfile": where.key,
    }
    ray_serve.start(proxy_location="HeadOnly", http_options=options)


def end_proxy(within_s: float) -> None:
    """End Serve's proxy, and with it Serve.

    `serve.shutdown` waits in a call that the end of Serve's controller breaks off, and Ray tells people of that as of
    a failure. So the controller is told to end, and its end is waited for.
    """
    import ray
    from ray import serve as ray_serve
    from ray.exceptions import RayError
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
    from ray.serve.context import _get_global_client

    deadline, client = time.monotonic() + within_s, _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        # One that is gone already, or hangs, is left to `shutdown`.
        with suppress(RayError):
            ray.get(client._controller.graceful_shutdown.remote(wait=False), timeout=within_s)
    while time.monotonic() < deadline:
        try:
            ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        except ValueError:
            break
        time.sleep(0.1)
    ray_serve.shutdown()  # type: ignore[no-untyped-call]


def _check_free(where: Address) -> None:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise UserError(
            f"Port {where.port} of {where.host} cannot be used: {error.strerror}.", "Choose another: `--port NUMBER`."
        ) from None


def _running() -> Any:
    """The HTTP options of the Serve that this Ray cluster runs; None when it runs none. No host: it has no HTTP."""
    # Ray's public status leaves the address out, and what `start` is given is ignored once Serve runs.
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else client.http_config


def _check_same(running: Any, asked: Address) -> None:
    if running.host is None:
        raise UserError("Ray Serve runs in this cluster without HTTP.", "End it first: `serve shutdown`.")
    if (running.host, running.port) != (asked.host, asked.port):
        raise UserError(
            f"Ray Serve runs in this cluster already, at {running.host}:{running.port}; "
            f"it cannot listen at {asked.host}:{asked.port} too.",
            f"Say `--host {running.host} --port {running.port}`, or end what is served there first.",
        )
    if (running.ssl_certfile, running.ssl_keyfile) != (asked.certificate, asked.key):
        with_what = f"the certificate {running.ssl_certfile}" if running.ssl_certfile else "no certificate"
        raise UserError(
            f"Ray Serve runs in this cluster already, with {with_what}.",
            "Name the same, or end what is served there first.",
        )
