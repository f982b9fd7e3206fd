#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-1%2
#SBATCH --comment=harness-RUN/0001/toy-1.5b.baseline.s1.cells
#SBATCH --cpus-per-task=4
#SBATCH --dependency=afterany:1
#SBATCH --gpus-per-node=1
#SBATCH --job-name=toy:toy-1.5b.baseline.s1.cells
#SBATCH --mem=24576M
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/RUN FOLDER/cluster/0001/toy-1.5b.baseline.s1.cells.%a.log'
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=B:USR2@120
#SBATCH --time=4:00:00

# setup
# The time limit comes near: the harness stops where it can go on from.
late= child=
trap 'late=1; [ -z "$child" ] || kill -USR2 "$child"' USR2
# Slurm sends this one to every process, so it is not passed on.
trap : TERM
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$SLURM_CPUS_ON_NODE}"
export HARNESS_RUN=harness-RUN/0001/
module load cuda

# command
export SUBMITIT_EXECUTOR=slurm
python -m harness run '/RUN FOLDER/cluster/0001/frozen.yaml' --units "$(sed -n "$((${SLURM_ARRAY_TASK_ID:-0} + 1))p" '/RUN FOLDER/cluster/0001/toy-1.5b.baseline.s1.cells.units')" &


# teardown
child=$!
[ -z "$late" ] || kill -USR2 "$child"
# A signal ends `wait`, not what it waits for.
wait "$child"
while kill -0 "$child" 2> /dev/null; do wait "$child"; done
wait "$child"
code=$?
# 75: stopped, to go on later; above 128: stopped before it could say so.
if [ -n "$late" ] && { [ "$code" -eq 75 ] || [ "$code" -gt 128 ]; } &&
    [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
fi
exit "$code"