from supervised_jobs import supervised

__all__ = ["supervised"]
