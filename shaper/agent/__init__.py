"""The agent: what runs beside the data plane and steers it, never what forwards.

`engine` and `store` join the planners with the kernel and remember what was applied; the CLI uses
them without an agent too. `loop` is the agent process: `health_runner` runs the checks, `control`
the weight controller, `worker` keeps every blocking engine call on one thread, `supervisor` keeps
tasks alive, `events` remembers what happened. Stopping the agent leaves the data plane forwarding.
"""
