"""Internal. Schema revisions of the accounts database."""
