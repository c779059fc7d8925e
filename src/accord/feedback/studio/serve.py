"""Run the studio: open the store, print how to get in, serve until stopped."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any

import uvicorn
from sqlalchemy import select
from sqlalchemy.orm import Session

from accord.feedback.store import Store, invite
from accord.feedback.store.tables import User
from accord.feedback.studio.app import create_app
from accord.feedback.studio.config import StudioConfig
from accord.feedback.studio.context import Importer

__all__ = ["admin_link", "serve"]

ADMIN_LINK_MS = 15 * 60_000


def admin_link(session: Session, *, base: str, now: int) -> str | None:
    """A link that makes one person admin of the site, once, within 15 minutes; None: there is an admin already."""
    if session.scalar(select(User.id).where(User.is_admin, User.disabled_at.is_(None)).limit(1)) is not None:
        return None
    return f"{base}/join/{invite(session, project_id=None, role='admin', expires_at=now + ADMIN_LINK_MS)}"


def serve(
    store: Store,
    config: StudioConfig,
    *,
    models: Mapping[str, Any] | None = None,
    importer: Importer | None = None,
    ready: Callable[[str], None],
) -> None:
    """Serve until interrupted.

    Args:
        store: where everything is kept.
        config: settings.
        models: name -> a model people can talk to.
        importer: reads files that admins send.
        ready: called with the address once it is taken, before the first request.

    Raises:
        ValueError: the address is taken or not of this machine.
    """
    app = create_app(store, config, models=models, importer=importer)
    listening = _listen(config.host, config.port)
    scheme = "https" if config.tls_certificate else "http"
    host = f"[{config.host}]" if ":" in config.host else config.host
    ready(f"{scheme}://{host}:{listening.getsockname()[1]}")
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("accord.studio").setLevel(config.log_level.upper())
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level=config.log_level,
            access_log=False,  # it would hold addresses and tokens; `security.Hardening` writes its own line
            server_header=False,
            proxy_headers=config.behind_proxy,
            forwarded_allow_ips="127.0.0.1",
            ssl_certfile=config.tls_certificate,
            ssl_keyfile=config.tls_key,
            timeout_graceful_shutdown=3,
            timeout_keep_alive=75,  # people think between two clicks; a form must not meet a connection being closed
        )
    )
    server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ValueError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another `--port`") from None
    listening.listen(512)
    return listening
