"""Records what real loaders ask of a mount: `python -m tools.trace FOLDER [NAME...]`, as root, with /dev/fuse."""
