"""``torchnet verify``: checks of the installation, and test pods on two nodes or on all of them."""
