"""The processes of one run: which of them this is, and what they have to agree on before they can talk to each other."""

import os
from datetime import datetime, timedelta

from irformer.errors import UserError


def rank() -> int:
    """The number of this process among all of a run, 0 for the one that writes and speaks."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    return int(os.environ["SLURM_PROCID"] if _tasks() > 1 else os.environ.get("LOCAL_RANK", 0))


def started_together() -> bool:
    """Whether torchrun or srun has started this process as one of several."""
    return ("TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1) or _tasks() > 1


def is_child() -> bool:
    """Whether Lightning has started this process beside the first one, by the same command line."""
    return not started_together() and int(os.environ.get("LOCAL_RANK", 0)) > 0


def start_time() -> datetime:
    """When the run was started; on several processes the same for all: the time in a run's name must not depend on who computes it.

    torchrun's processes settle it in the store that torchrun keeps for them; srun's take the start of the job.

    Raises:
        UserError: there are several processes and no way to agree.
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
    raise UserError("several processes have been started that cannot agree on a name for the run: give name=NAME")


def _tasks() -> int:
    return int(os.environ.get("SLURM_NTASKS", 1)) if "SLURM_PROCID" in os.environ else 1
