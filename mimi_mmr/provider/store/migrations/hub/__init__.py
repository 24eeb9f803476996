"""Internal. Schema revisions of the hub database."""
