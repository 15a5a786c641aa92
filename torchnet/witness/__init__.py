"""The witness: which network carried the bytes of any command on this host, without a job of torchnet around it."""
