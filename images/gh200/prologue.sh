# Job-script prologue for sessions under the container engine: `prologue` of the environment in the site file, which may
# also be `source` with this file's path. It runs in bash on the first node, outside of the container, before
#     srun --nodes=1 --ntasks=1 --environment=${EDF} python3 ...
# (that environment's req_srun; `#SBATCH --environment` would put this script itself into the container, which sites
# advise against). The job script goes on to start the server, so only failures may `exit` here.

export EDF=${EDF:-/capstor/store/oberalp/oberalp.toml}
if [[ ! -r $EDF ]]; then
  echo "The environment file $EDF cannot be read on $(hostname). Please tell the site's administrators." >&2
  exit 1
fi

# A core file of a process with four GPUs fills a quota.
ulimit -c 0

# Trainer and accelerate take these for a distributed run, and wait for ranks that never come; the notebook is one process.
unset RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR MASTER_PORT

# The login node's modules and virtual environments shadow the image's packages.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV LD_LIBRARY_PATH
