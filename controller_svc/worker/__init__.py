"""What a stage's task does, one shard: an asyncio task on a laptop, a pod of an Indexed Job on a cluster."""
