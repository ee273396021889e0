"""The first task: plain-language requests and the Slurm headers they ask for. See README.md in this folder."""
