"""The HTTP API on the agent's Unix socket, and its client.

`app` describes the API, `server` runs it, `client` speaks to it. Nothing here knows the kernel: the
agent answers through the `Controlled` protocol.
"""
