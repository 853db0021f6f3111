"""The costume: a `vfs.FileSystem` on the kernel's side through pyfuse3, whose only importer this package is."""
