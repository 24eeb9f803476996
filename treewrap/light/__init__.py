"""The light tree and its paths. Internal: the public names are those of `treewrap`."""
