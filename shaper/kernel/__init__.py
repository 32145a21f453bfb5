"""All kernel I/O: BPF objects, netlink, sysctls, namespaces. The only imports of bcc and pyroute2.

Nothing here decides what should be: it observes, and it executes what a planner returned.
"""
