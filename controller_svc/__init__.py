"""The controller: runs ReST^EM over the services, locally or on a cluster, from one pure core."""
