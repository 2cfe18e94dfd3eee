"""How the parts are put on machines: natively, in containers, in a cluster."""
