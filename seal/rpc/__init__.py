"""gRPC as all services and clients use it.

It holds rich errors, one server, one channel, checks and conversions of what crosses the wire.
"""
