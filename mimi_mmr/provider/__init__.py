"""The provider as aiohttp applications: what answers directly, and what answers through the gateway only."""
