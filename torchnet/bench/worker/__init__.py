"""What runs in each rank of a benchmark: it travels by itself, so it needs the standard library, torch and torchnet."""
