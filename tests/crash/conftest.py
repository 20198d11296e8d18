"""The real S3 server, where it is installed."""

from s3_server import running_s3, s3_root

__all__ = ["running_s3", "s3_root"]
