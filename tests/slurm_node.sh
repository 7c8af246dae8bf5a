#!/usr/bin/env bash
# A real Slurm of one node for the tests, on Debian: loopback only, without systemd, cgroups or accounting.
#
#   eval "$(tests/slurm_node.sh up FOLDER)"   install what is missing (as root), start it, print what clients need
#   tests/slurm_node.sh down FOLDER           stop it
#
# The node claims more processors than there are, so that several jobs run side by side on a small machine.
set -euo pipefail

usage() { echo "usage: $0 up|down FOLDER" >&2; exit 2; }
[ $# = 2 ] || usage
mkdir -p "$2"
dir=$(cd "$2" && pwd)
node=$(hostname -s)
port=${SLURM_NODE_PORT:-17817}
export SLURM_CONF=$dir/slurm.conf PATH=$PATH:/usr/sbin
socket=$dir/munge.socket

install() {
    type slurmctld slurmd sbatch munged >/dev/null 2>&1 && return
    [ "$(id -u)" = 0 ] || { echo "slurm_node: install slurm-wlm and munge, or run this once as root" >&2; exit 1; }
    local policy=/usr/sbin/policy-rc.d
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; trap "rm -f $policy" RETURN; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >"$dir/apt.log" 2>&1 ||
        { tail "$dir/apt.log" >&2; exit 1; }
}

configure() {
    [ -s "$dir/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
    # cred_expire is also what a requeued job waits for before it starts again; 120 s unless said
    cat >"$SLURM_CONF" <<END
ClusterName=tests
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=5
MinJobAge=3600
ReturnToService=2
NodeName=$node NodeAddr=127.0.0.1 CPUs=${SLURM_NODE_CPUS:-8} RealMemory=65536 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=5
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF
END
    echo "CgroupAutomount=no" >"$dir/cgroup.conf"
}

stop() {
    for name in slurmd slurmctld munged; do
        pid=$(cat "$dir/$name.pid" 2>/dev/null) || continue
        grep -qs "$name" "/proc/$pid/comm" || continue
        kill "$pid"
        for _ in $(seq 50); do [ -e "/proc/$pid" ] || break; sleep 0.2; done
    done
}

start() {
    mkdir -p "$dir/state" "$dir/spool"
    munged --force --key-file="$dir/munge.key" --socket="$socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
    slurmctld -c -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF" -N "$node"
    for _ in $(seq 100); do
        srun --immediate=5 --time=1 true 2>/dev/null && return
        sleep 0.2
    done
    tail "$dir/slurmctld.log" "$dir/slurmd.log" >&2
    echo "slurm_node: no job starts" >&2
    exit 1
}

case $1 in
    up) install; stop; configure; start >&2; echo "export SLURM_CONF='$SLURM_CONF'" ;;
    down) stop ;;
    *) usage ;;
esac
