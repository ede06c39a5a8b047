"""The processes of a run: the rank of this one, and values to agree on before they can communicate."""

import os
from datetime import datetime, timedelta

from irformer.errors import UserError


def rank() -> int:
    """Return the global rank of this process; rank 0 writes files and logs."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    return int(os.environ["SLURM_PROCID"] if _tasks() > 1 else os.environ.get("LOCAL_RANK", 0))


def started_together() -> bool:
    """Return whether torchrun or srun started this process as one of several."""
    return ("TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1) or _tasks() > 1


def is_child() -> bool:
    """Return whether Lightning launched this process from rank 0, by the same command line."""
    return not started_together() and int(os.environ.get("LOCAL_RANK", 0)) > 0


def start_time() -> datetime:
    """Return the time at which the run started, identical on all processes because it is part of the run's name.

    Processes of torchrun agree through torchrun's store; those of srun use the start time of the job.

    Raises:
        UserError: there are several processes and they cannot agree.
    """
    if not started_together():
        return datetime.now()
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        from torch.distributed import TCPStore

        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(minutes=5))
        agreed = store.compare_set("irformer/start", "", repr(datetime.now().timestamp()))
        return datetime.fromtimestamp(float(agreed))
    if "SLURM_JOB_START_TIME" in os.environ:
        return datetime.fromtimestamp(int(os.environ["SLURM_JOB_START_TIME"]))
    raise UserError("several processes were started and cannot agree on a name for the run: set name=NAME")


def _tasks() -> int:
    return int(os.environ.get("SLURM_NTASKS", 1)) if "SLURM_PROCID" in os.environ else 1
