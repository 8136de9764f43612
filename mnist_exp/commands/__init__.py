"""The named commands beside Hydra's door, one file each."""
