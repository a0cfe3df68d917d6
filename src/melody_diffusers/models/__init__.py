"""The networks: one file each, in the order of the paper's sections."""
