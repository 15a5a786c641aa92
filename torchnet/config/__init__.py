"""The settings of a job: flags, environment variables and files become one `JobSpec`."""
