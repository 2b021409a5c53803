#!/bin/bash
#SBATCH --job-name=study-1
#SBATCH --array=0-11%3
#SBATCH --output="/data/a study/slurm/study-1-%a.log"
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --time=2:00:00
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G

# First of all: Slurm may warn of the time limit a minute early, before anything below has begun.
why=
trap 'why=limit' USR1
trap 'why=term' TERM

# not $SLURM_JOB_ID, which for one task is the job of the whole array
task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
run=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" '/data/a study/slurm/study-1.txt')
newest() { ls "$run/checkpoints" 2>/dev/null | tail -n 1; }
before=$(newest)
[ -e "$run/cancel.json" ] && exit 0

# The trainer hears no signal until it listens, and is told until it ends.
(trap '' USR1 TERM; exec '/opt/py thon/bin/python' -m isoflop train "$run" --json --threads "${SLURM_CPUS_ON_NODE:-1}") &
trainer=$!
while kill -0 "$trainer" 2>/dev/null; do
  [ -n "$why" ] || [ -e "$run/cancel.json" ] && kill -USR1 "$trainer" 2>/dev/null
  sleep 0.5
done
wait "$trainer"
code=$?

# Stopped from outside, and neither done nor called off: queue again. A task that Slurm cancels runs no longer.
if [ -n "$why" ] && [ ! -e "$run/record.json" ] && [ ! -e "$run/cancel.json" ] &&
  [ "$(squeue --noheader --jobs="$task" --format=%T)" = RUNNING ]; then
  if [ "$why" = limit ] && [ "$(newest)" = "$before" ]; then
    echo "the time limit left no room for a checkpoint; give a longer --time" >&2
    exit 1
  fi
  scontrol requeue "$task" && exit 0
fi
[ "$code" -gt 128 ] && [ "$code" -ne 130 ] && echo "its process was killed by signal $((code - 128))" >&2
exit "$code"
