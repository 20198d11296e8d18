"""A run in the artifact store: where its files lie, and how its shards commit what they have done.

store    paths, what is created once, and the fence against workers of older controllers
task     what one shard is given
improve  the M-step of a round, from the rollout's records to the summary

Workers use it, and the M-step's own job.
"""
