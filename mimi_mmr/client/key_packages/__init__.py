"""KeyPackages: made ahead, put on shelves for contacts, taken from theirs."""
