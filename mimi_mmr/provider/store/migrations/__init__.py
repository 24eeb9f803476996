"""Internal. Schema revisions of each database, oldest first: one folder a role, one module a revision.

`mimi_mmr.provider.store.schema` runs them; `docs/migrations.md` says how to add one. Never change a revision
that was released: existing databases were made by it.
"""
