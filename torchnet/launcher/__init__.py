"""What the launcher of a local job and that of one of several hosts share."""
