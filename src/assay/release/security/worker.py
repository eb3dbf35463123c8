"""gunicorn's worker for the identity service and Assay's own front; a version's is one too."""

from uvicorn_worker import UvicornWorker


class QuietWorker(UvicornWorker):  # type: ignore[misc]
    """No access log: the front has one, without tokens."""

    CONFIG_KWARGS = {
        "loop": "uvloop",
        "http": "httptools",
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
    }
