"""SEAL on Kubernetes: a model that writes its own finetuning data, as a service.

After arXiv 2506.10943.
"""
