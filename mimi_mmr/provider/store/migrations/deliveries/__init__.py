"""Internal. Schema revisions of the deliveries database."""
