"""Where a sweep runs: each file connects this process to Ray in one way and says what it found.

Every target is a context manager ``connect(...) -> Connection``; leaving it stops what it started, and nothing else.
This package stands alone: it imports none of the others.
"""

from cluster.connection import ClusterError, Connection
from cluster.existing import connect as existing
from cluster.existing import token_source
from cluster.local import OBJECT_STORE_BYTES
from cluster.local import connect as local
from cluster.local import cpus as local_cpus

__all__ = ["OBJECT_STORE_BYTES", "ClusterError", "Connection", "existing", "local", "local_cpus", "token_source"]
