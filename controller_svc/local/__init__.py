"""The world of a laptop: asyncio tasks, files, a lock, and the three services in this process."""
