"""The object store: errors, names, and the adapter to any S3 server. The port is `pipeline.ports.ObjectStore`."""
