#!/usr/bin/env bash
# Runs a command beside a Slurm of one node that lives in a temporary folder and ends with the command.
#
#   tests/slurm/cluster.sh python -m pytest -m slow tests/test_slurm.py
#
# Needs root and Debian's packages: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
set -euo pipefail

for program in munged slurmctld slurmd sbatch squeue scontrol setpriv; do
  if ! command -v "$program" >/dev/null; then
    echo "slurm: skipped, $program is not installed"
    exit 0
  fi
done
if [ "$(id -u)" != 0 ]; then
  echo "slurm: skipped, only root starts a node"
  exit 0
fi

home=$(mktemp -d "${TMPDIR:-/tmp}/slurm.XXXXXX")
chmod 755 "$home"
mkdir "$home/munge" "$home/state" "$home/spool"
stop() {
  scancel --user=root 2>/dev/null || true
  for name in slurmd slurmctld munged; do
    # a daemon forks, so its own file tells its process
    [ -s "$home/$name.pid" ] && kill "$(cat "$home/$name.pid")" 2>/dev/null || true
  done
  [ -s "$home/munge/munged.pid" ] && kill "$(cat "$home/munge/munged.pid")" 2>/dev/null || true
  for _ in $(seq 50); do
    [ -e "$home/slurmd.pid" ] || [ -e "$home/slurmctld.pid" ] || break
    sleep 0.1
  done
  rm -rf "$home"
}
trap stop EXIT

dd if=/dev/urandom of="$home/munge/key" bs=128 count=1 status=none
chmod 600 "$home/munge/key"
chown -R munge:munge "$home/munge"
setpriv --reuid=munge --regid=munge --init-groups munged \
  --key-file="$home/munge/key" --socket="$home/munge/socket" --pid-file="$home/munge/munged.pid" \
  --log-file="$home/munge/log" --seed-file="$home/munge/seed"

host=$(hostname -s)
cat >"$home/slurm.conf" <<CONF
ClusterName=isoflop
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_min_interval=100000
PriorityType=priority/basic
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$home/jobs.txt
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=$host MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
export SLURM_CONF="$home/slurm.conf"
slurmctld
slurmd
for _ in $(seq 100); do
  [ "$(sinfo --noheader --format=%T 2>/dev/null | head -1)" = idle ] && break
  sleep 0.1
done
if [ "$(sinfo --noheader --format=%T | head -1)" != idle ]; then
  echo "slurm: the node did not come up"
  tail -n 20 "$home/slurmctld.log" "$home/slurmd.log"
  exit 1
fi
"$@"
