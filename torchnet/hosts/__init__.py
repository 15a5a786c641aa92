"""The runtime of jobs whose command is started on each host, as with torchrun and srun: torchnet's agent on each."""
