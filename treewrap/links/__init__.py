"""Join links, their seals, deferred leaves. Internal: the public names are those of `treewrap`."""
