"""How the commands of rules begin: in a prefix, which reruns nothing when it changes."""

from assay.slurm.endings import JOB

# `stage NAME …` becomes an entry point, run with the package of this checkout by the image's interpreter or this one;
# `host_stage` always by this one. No shell is left between Snakemake and the job that a signal could end first. -P: scripts do
# not hide modules of the same name. `on_nodes THREADS` before a stage starts it on each node. Telemetry stands here and not among
# the parameters of rules: how closely runs are watched decides nothing that they compute.
SOURCES, SCRIPTS = (shlex.quote(f"{workflow.basedir}/{folder}") for folder in ("src", "workflow/scripts"))
TELEMETRY = f"--telemetry {EXPERIMENT.telemetry.interval:g}" if EXPERIMENT.telemetry.enabled else ""
HOST_PYTHON = shlex.quote(sys.executable)

# One task on each node, in the image where there is one. A task tells Apptainer its own variables of Slurm's, not those of the
# node that the job was started on.
TASK = shlex.quote('for name in ${!SLURM_@}; do export "APPTAINERENV_$name=${!name}"; done; exec "$@"')
APPTAINER_ARGS = workflow.deployment_settings.apptainer_args
IN_IMAGE = (
    f"apptainer exec --home {shlex.quote(os.getcwd())} {APPTAINER_ARGS} {shlex.quote(str(IMAGE.sif))}"
    if CONTAINED
    else ""
)
SPANNING_LAUNCH = (
    f"srun --nodes={NODES} --ntasks={NODES} --ntasks-per-node=1 --cpus-per-task=$1 --kill-on-bad-exit=0 "
    f"bash -c {TASK} task {IN_IMAGE} env PYTHONPATH={SOURCES}"
)
PREFIX = f"""export PYTHONPATH={SOURCES}; launch=()
run_stage() {{ [ -z "${{SLURM_JOB_ID:-}}" ] || echo "{JOB.format("$SLURM_JOB_ID")}"
  local python=$1 name=$2; shift 2
  case $name in train|profile) set -- "$@" {TELEMETRY};; esac
  exec "${{launch[@]}}" "$python" -P {SCRIPTS}/"$name".py "$@"; }}
stage() {{ run_stage {"python3" if CONTAINED else HOST_PYTHON} "$@"; }}
host_stage() {{ run_stage {HOST_PYTHON} "$@"; }}
on_nodes() {{ {f"launch=({SPANNING_LAUNCH})" if NODES > 1 else ":"}; }}
"""
# Snakemake formats the prefix.
shell.prefix(PREFIX.replace("{", "{{").replace("}", "}}"))

SPANNING = {} if NODES == 1 else {"nodes": NODES, "tasks": NODES, "mpi": "srun"}
if NODES > 1 and MOST_GPUS:
    SPANNING["gres"] = f"gpu:{MOST_GPUS}"
