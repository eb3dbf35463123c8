"""gunicorn with the settings of its command alone: a `gunicorn.conf.py` in the folder, or the variable of another service, is not ours.

This module is what gunicorn reads as its configuration, and has none.
"""

COMMAND = ("--config", f"python:{__name__}")
VARIABLES = {"GUNICORN_CMD_ARGS": ""}
