"""What a stage's task does for one shard, on a laptop as in a pod.

An asyncio task on a laptop, a pod of an Indexed Job on a cluster.
"""
