"""Where a sweep runs. Targets are of two kinds, a file each.

Either the driver is this process: ``local`` and ``existing`` are context managers ``connect(...) -> Connection``, and
leaving one stops what it started and nothing else. Or the driver runs there: a ``Target`` takes a ``Job`` and can say
how far it is, show its output, cancel it and fetch its results: ``rayjobs``, ``slurm``, ``kubernetes``, ``cloud``.

This package stands alone: it imports none of the others.
"""

from cluster.bundle import Bundle
from cluster.connection import Connection
from cluster.credentials import token_source
from cluster.errors import ClusterError
from cluster.existing import connect as existing
from cluster.job import Job, Place, State, Target
from cluster.local import OBJECT_STORE_BYTES
from cluster.local import connect as local
from cluster.local import cpus as local_cpus
from cluster.scratch import base as temporary
from cluster.targets import WORDS, target

__all__ = ["OBJECT_STORE_BYTES", "WORDS", "Bundle", "ClusterError", "Connection", "Job", "Place", "State", "Target",
           "existing", "local", "local_cpus", "target", "temporary", "token_source"]
