"""What may stand for a tracking server in the experiment file."""

from urllib.parse import urlsplit


def problem_of_uri(uri: str) -> str | None:
    """What is wrong with it, and what to write instead. A secret in it is not repeated."""
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return "is no URI; write `https://HOST:PORT` or a folder, `./mlruns`"
    if "@" in parts.netloc or parts.query or parts.fragment:
        return (
            "holds credentials or options; write `https://HOST:PORT` alone, and set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, where the workflow is started"
        )
    if not uri.strip() or any(character.isspace() for character in uri.strip()) or uri != uri.strip():
        return "is empty or holds spaces; write `https://HOST:PORT` or a folder, `./mlruns`"
    if parts.scheme in {"http", "https"}:
        return None if parts.hostname else "names no host; write `https://HOST:PORT`"
    if parts.scheme == "file":
        return None if parts.path and not parts.netloc else "write `file:///path/of/a/folder`"
    if not parts.scheme:
        return None
    if parts.scheme.split("+")[0] in {"sqlite", "postgresql", "mysql", "mssql"}:
        return (
            f"{parts.scheme} needs more than MLflow's client, which is what Assay has; start "
            "`mlflow server --backend-store-uri …` on it and write `http://HOST:PORT`"
        )
    return f"{parts.scheme} is not known; write `https://HOST:PORT` or a folder, `./mlruns`"
