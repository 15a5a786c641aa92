"""``torchnet verify``: checks of the installation, and two test pods, on two nodes where possible."""
