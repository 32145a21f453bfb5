"""Labs: clients, a gateway and backends in network namespaces of one machine.

Used by the demo, the end-to-end tests and the benchmarks. `plan` (addresses and names, pure),
`namespace` (running things inside one), `ownership` (who made what; removing leftovers), `servers`
(nginx, iperf3, UDP echo), `network` (the lab itself, a context manager), `traffic` (load and
measurements), `load` and `echo` (small programs that run inside namespaces), `demo` (scripts/demo).

A lab never touches the first network namespace, uses addresses of the documentation and benchmark
ranges only (RFC 5737, RFC 2544, RFC 3849), and speaks to the kernel through ip, tc, ethtool
and nsenter: what it builds must not depend on the code that it is there to try.
"""
