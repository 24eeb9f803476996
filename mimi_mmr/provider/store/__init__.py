"""Storage: SQLAlchemy Core over SQLite (WAL) or PostgreSQL; one database for each role of a provider."""
