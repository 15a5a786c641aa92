"""Settings of a job: read flags, environment variables and files, and merge them into one `JobSpec`."""
