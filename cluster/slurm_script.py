"""What runs on the nodes of a Slurm job: the head starts Ray and the driver, the others join, and a job that is cut
short goes back to the queue."""

from __future__ import annotations

from cluster.commands import DRIVER

# Before it come the #SBATCH lines, setup, and the variables nodes, requeue, options and driver. In the job's folder:
#   code, token         the bundle, and the token that lets nodes and driver into this job's Ray
#   address             of the head, for the nodes of an array that join it
#   driver.pid, stop    see commands.DRIVER; driver.status is there once it has ended
#   cancelled, status   somebody cancelled the job; nothing more will come of it
SCRIPT = DRIVER + r"""
own_temporary_folder() {  # each node its own; a socket's path has 107 bytes at most, of which Ray takes 67
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/ps-XXXXXX")
    if [ ${#scratch} -gt 40 ]; then rmdir "$scratch"; scratch=$(mktemp -d /tmp/ps-XXXXXX); fi
    options+=(--temp-dir="$scratch")
    trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$scratch"' EXIT
}

again() {  # Slurm ends this script soon after, and maybe scontrol before it has said that all is well
    [ "$requeue" = 1 ] && [ ! -e cancelled ] || return
    scontrol requeue "$SLURM_JOB_ID"
    set -- $?
    [ "$1" -gt 0 ] && [ "$1" -lt 128 ] || exit 0
}

end() {
    echo "$1" >status
    [ -z "${SLURM_ARRAY_JOB_ID-}" ] || scancel --state=PENDING "$SLURM_ARRAY_JOB_ID"
    [ -z "${ray-}" ] || kill "$ray" 2>/dev/null
    wait
    exit "$1"
}

join() {  # what the other nodes of an array do: stay until the head is gone
    exec >>"node-$SLURM_ARRAY_TASK_ID.log" 2>&1
    own_temporary_folder
    leave= waited=0
    trap leave=1 TERM
    until [ -n "$leave" ] || [ -e status ] || [ -e address ] || [ $((waited++)) -gt 600 ]; do sleep 1; done
    if [ -z "$leave" ] && [ ! -e status ] && [ -e address ]; then
        ray start --address="$(cat address)" --block "${options[@]}" &
        while kill -0 $! 2>/dev/null && [ -z "$leave" ] && [ ! -e status ]; do sleep 1; done
        kill $! 2>/dev/null
        wait
    fi
    [ -e status ] || again
    exit 0
}

case ${1-} in
node)  # each node of an allocation
    own_temporary_folder
    RAY_ADDRESS=$2 ray symmetric-run --address "$2" --min-nodes "$nodes" "${options[@]}" -- bash job.sh driver
    exit;;
driver)
    drive "${driver[@]}"
    echo $? >driver.status
    exit "$(cat driver.status)";;
esac

unset RAY_AUTH_TOKEN RAY_ADDRESS
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$PWD/token" RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
[ "${SLURM_ARRAY_TASK_ID:-0}" = 0 ] || join
rm -f address stop driver.pid driver.status status ray.log
trap stop TERM
read -r head client <<<"$(python -c 'import contextlib, importlib.util, random, ray.util, socket
def free():  # below the ports that a system gives out by itself
    while True:
        with contextlib.suppress(OSError), socket.create_server(("", port := random.randrange(20000, 32000))):
            return port
client = f"--ray-client-server-port={free()}" if importlib.util.find_spec("grpc") else ""
print(f"{ray.util.get_node_ip_address()}:{free()} {client}")')"
[ -n "$head" ] || end 1
if [ "$nodes" -gt 1 ]; then  # the other nodes have a minute to leave after the head
    srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --wait=60 \
        bash job.sh node "$head" &
else
    own_temporary_folder
    ray start --head --node-ip-address="${head%:*}" --port="${head##*:}" --include-dashboard=false --block $client \
        "${options[@]}" >ray.log 2>&1 &
    ray=$!
    until grep -qs 'Ray runtime started' ray.log; do
        kill -0 "$ray" 2>/dev/null || { cat ray.log; end 1; }
        sleep 0.2
    done
    echo "$head" >address.new
    mv address.new address
    RAY_ADDRESS=$head bash job.sh driver &
fi
# Not `wait`: a step that is slow to end must not keep us from the queue, and signals arrive in between.
while kill -0 $! 2>/dev/null && [ ! -e driver.status ]; do sleep 0.5; done
status=$(cat driver.status 2>/dev/null || echo 1)
rm -f address
case $status in 15|130|143) again;; esac  # see slurm.STOPPED
end "$status"
"""
